"""The packages of the extra `remote`, imported when a URL is first used."""

from __future__ import annotations

import importlib
from types import ModuleType

from pcmci.errors import UsageError


def need(module: str, url: object) -> ModuleType:
    """The module. Raises UsageError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise UsageError(f"{url}: URLs need {name}: pip install 'pcmci[remote]'") from error
