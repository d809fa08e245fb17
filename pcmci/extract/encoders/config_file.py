"""Reading a model's JSON config; torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pcmci.errors import WeightsError
from pcmci.extract.encoders.names import meant

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config")
Sizes = TypeVar("Sizes", bound="DataclassInstance")

KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float)}
"""What a size of a type may be in JSON."""


def read_json(path: Path) -> dict[str, Any]:
    """Raises WeightsError for a file that cannot be read or holds no object."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"config {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise WeightsError(f"config {path} is no JSON object")
    return raw


def find_config(
    name: str, known: Mapping[str, Config], read: Callable[[Path], Config], *others: str
) -> Config:
    """The config of a video encoder's name, or in the file at a path. others: names that the caller
    knows besides. Raises WeightsError for a name that is neither."""
    if name in known:
        return known[name]
    if name.endswith(".json"):
        return read(Path(name))
    raise WeightsError(
        f"no video encoder is called {name!r}{meant(name, known)}; there are "
        f"{', '.join([*known, *others])}, or the path of a JSON config"
    )


def read_sizes(path: Path, kind: type[Sizes], supported: Mapping[str, Any]) -> Sizes:
    """A JSON config as the dataclass of an architecture's sizes; other keys may be there.

    supported: what a config may say besides, and with which value. Raises WeightsError for another
    value, and for a size that is missing or impossible: an `int` has to be a positive whole number,
    a `float` a positive one.
    """
    raw = read_json(path)
    for key, value in supported.items():
        if raw.get(key, value) != value:
            raise WeightsError(f"config {path}: {key} is {raw[key]!r}, only {value!r} is supported")
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = raw.get(field.name, field.default)
        if value is MISSING:
            raise WeightsError(f"config {path} has no {field.name}")
        kinds = KINDS.get(str(field.type))
        if kinds and (type(value) not in kinds or not 0 < value < math.inf):
            raise WeightsError(f"config {path}: {field.name} is {value!r}, no positive number")
        values[field.name] = value
    return kind(**values)
