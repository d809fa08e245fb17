"""Files that go with a store: their names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeVar

from pcmci.remote.url import Place, Url

JOURNAL = ".journal"
"""What a writer has put and not yet counted as done."""

SPEED = ".speed.json"
"""How long it took to fill the store (`pcmci.extract.speed`)."""

AnyPlace = TypeVar("AnyPlace", Path, Url)


def beside(path: AnyPlace, suffix: str) -> AnyPlace:
    """`features/coin.zarr` and `.lock`: `features/coin.zarr.lock`."""
    return path.with_name(path.name + suffix)


def nearby(store: Place, suffix: str) -> Path:
    """`features/coin.zarr` and `.journal`: `features/coin.zarr.journal`.

    Of a store under a URL: a file of that name in a folder of its own under
    `$XDG_CACHE_HOME/pcmci` (~/.cache/pcmci), which may not exist yet.
    """
    if not isinstance(store, Url):
        return beside(store, suffix)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(store).encode()).hexdigest()[:16]
    return cache / "pcmci" / digest / f"{store.name}{suffix}"


def forget(store: Place) -> None:
    """Delete what goes with a store that another takes the place of: it is not true of that one."""
    for suffix in (JOURNAL, SPEED):
        nearby(store, suffix).unlink(missing_ok=True)
