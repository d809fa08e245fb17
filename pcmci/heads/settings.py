"""What a setting is: a field of a frozen dataclass, with its default, its help and what is right.

Torch-free, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Self

from pcmci.errors import UsageError


def option(default: Any, help: str, **extra: Any) -> Any:
    """A setting. help: of its flag. extra: `flag`, its name there, where that is not the field's;
    `choices`, the right values, where they are few; `later=True` for one that came after runs had
    been made: at its default it leaves no trace in a run's key."""
    return field(default=default, metadata={"help": help, **extra})


def same(config: type, name: str, **other: Any) -> Any:
    """A setting as another head's settings have it. other: what is not the same, as its default."""
    entry = next(entry for entry in dataclasses.fields(config) if entry.name == name)
    metadata = {key: value for key, value in entry.metadata.items() if key != "later"}
    return field(default=other.get("default", entry.default), metadata=metadata)


def flag_name(entry: dataclasses.Field[Any]) -> str:
    """The flag of a field, without its dashes: `lam` is `lambda`, `batch_size` `batch-size`."""
    return str(entry.metadata.get("flag", entry.name.replace("_", "-")))


_KINDS = {bool: "True or False", int: "a whole number", float: "a finite number"}


def check_kinds(config: Any) -> None:
    """Every setting is one of its choices, or of its default's type."""
    for entry in dataclasses.fields(config):
        value, kind = getattr(config, entry.name), type(entry.default)
        choices = entry.metadata.get("choices")
        if choices and value not in choices:
            raise UsageError(f"{flag_name(entry)} {value!r} is none of {', '.join(choices)}")
        if choices or kind not in _KINDS:
            continue
        fits = isinstance(value, (int, float) if kind is float else kind)
        if kind is not bool:
            fits = fits and not isinstance(value, bool) and math.isfinite(value)
        if not fits:
            raise UsageError(f"{flag_name(entry)} {value!r} must be {_KINDS[kind]}")


def check_positive(config: Any, *names: str) -> None:
    """Settings of these names are above 0."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if entry.name in names and value <= 0:
            raise UsageError(f"{flag_name(entry)} {value} must be above 0")


def check_share(config: Any, *names: str, whole: bool = False) -> None:
    """Settings of these names are at least 0, and below 1 (with `whole`: at most 1)."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if entry.name in names and not (0 <= value < 1 or (whole and value == 1)):
            most = "at most 1" if whole else "below 1"
            raise UsageError(f"{flag_name(entry)} {value} must be at least 0 and {most}")


def recorded(config: Any) -> dict[str, Any]:
    """The settings as a run's key and its config.json have them: without those that came later
    and are at their default, so that a run made before keeps its name."""
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if entry.metadata.get("later") and value == entry.default:
            continue
        values[entry.name] = recorded(value) if dataclasses.is_dataclass(value) else value
    return values


@dataclass(frozen=True)
class HeadConfig:
    """What every head's settings say of themselves; a head's own derive from it."""

    @classmethod
    def from_record(cls, raw: dict[str, Any]) -> Self:
        """From what config.json says of them."""
        return cls(**raw)

    @property
    def frozen_transport(self) -> Any:
        """The settings of the S~ of the frozen embeddings that the head is to be given, or None
        where it wants none."""
        return None

    def check_frames(self, frames: int) -> None:
        """Raises UsageError where the head makes no sense of so many frames a video."""

    @property
    def alike(self) -> Self:
        """Equal for heads that can be trained as one stack: without what may differ there."""
        return self
