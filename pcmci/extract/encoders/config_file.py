"""Reading a model's JSON config; torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pcmci.errors import WeightsError


def read_json(path: Path) -> dict[str, Any]:
    """Raises WeightsError for a file that cannot be read or holds no object."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"config {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise WeightsError(f"config {path} is no JSON object")
    return raw
