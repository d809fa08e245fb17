"""Which of many run folders are meant, and in which order: by facts, settings and scores."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pcmci.errors import UsageError
from pcmci.heads.catalogue import check_head, owners, setting, setting_name
from pcmci.heads.config import order_name, parse_labels, parse_order
from pcmci.heads.training.folders import STATES, Listed

FACTS = ("dataset", "store", "head", "order", "labels", "state", "device", "precision")
"""What a run can be chosen by beside its settings."""

Wanted = dict[str, list[str]]
"""A fact or a setting -> the values that it may have."""


def parse_where(conditions: Sequence[str]) -> Wanted:
    """`["order=ich", "seed=0", "seed=1"]` to {"order": ["ich"], "seed": ["0", "1"]}.

    Raises UsageError for what is no KEY=VALUE, an unknown key, and a value that its key cannot
    have.
    """
    wanted: Wanted = {}
    for condition in conditions:
        key, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or not key or not value:
            raise UsageError(
                f"--where {condition!r}: use KEY=VALUE, as order=ich, head=mlp, seed=0 or lr=3e-3"
            )
        name = key.lower() if key.lower() in FACTS else setting_name(key)
        try:
            wanted.setdefault(name, []).append(_checked(name, value))
        except UsageError as error:
            raise UsageError(f"--where {condition}: {error}") from None
    return wanted


def _checked(name: str, value: str) -> str:
    if name == "order":
        return order_name(parse_order(value))
    if name == "labels":
        return ",".join(parse_labels(value))
    if name == "head":
        return check_head(value)
    if name == "state" and value not in STATES:
        raise UsageError(f"a run's state is one of {', '.join(STATES)}")
    if name in FACTS:
        return value
    try:
        owners(name)
    except UsageError as error:
        near = difflib.get_close_matches(name, FACTS, n=1)
        hint = f"runs have no {name!r}; did you mean {near[0]!r}?" if near else error
        raise UsageError(str(hint)) from None
    kind = type(setting(name)[1].default)
    if (kind in (int, float) and _number(value) is None) or (
        kind is bool and value.lower() not in ("true", "false")
    ):
        right = "True or False" if kind is bool else "a number"
        raise UsageError(f"{name} is {right}")
    return value


def chosen(run: Listed, wanted: Wanted) -> bool:
    """Whether a run has one of the wanted values of every key."""
    return all(
        any(_is(_value(run, name), value) for value in values) for name, values in wanted.items()
    )


def _value(run: Listed, name: str) -> Any:
    if name in FACTS:
        return getattr(run, name)
    own = name.removeprefix(f"{run.head.replace('-', '_')}_")
    return run.settings.get(name, run.settings.get(own))


def _is(value: Any, text: str) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    if isinstance(value, (int, float)):
        return _number(text) == float(value)
    return str(value) == text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


LARGEST_FIRST = ("bytes", "created", "seconds")
OTHER_KEYS = {"when": "created", "size": "bytes", "run": "path", "time": "seconds"}
"""What columns are called where people read."""


def sorted_runs(runs: Sequence[Listed], by: str, split: str) -> list[Listed]:
    """By a fact, a setting, or a score on `split`: scores, sizes and times the largest first,
    others ascending. Runs that have it not come last, in the order in which they were.

    Raises UsageError for what no run can be sorted by.
    """
    key = OTHER_KEYS.get(by.lower(), by)
    down = key in LARGEST_FIRST
    if key in LARGEST_FIRST or key in ("path", *FACTS):
        values = [getattr(run, key) for run in runs]
    elif any(key in of for run in runs for of in run.scores.values()):
        values, down = [run.scores.get(split, {}).get(key) for run in runs], True
    else:
        try:
            owners(key)
        except UsageError as error:
            raise UsageError(
                f"--sort {by}: {error}; or when, size, time, run, {', '.join(FACTS)}, or a score "
                "as Acc, mAP, ODD@0.6"
            ) from None
        values = [_value(run, setting_name(key)) for run in runs]
    there = [n for n, value in enumerate(values) if value not in (None, "")]
    there.sort(key=lambda n: _comparable(values[n]), reverse=down)
    return [runs[n] for n in [*there, *sorted(set(range(len(runs))) - set(there))]]


def _comparable(value: Any) -> tuple[int, Any]:
    if isinstance(value, (int, float)):
        return 0, value
    return 1, str(value)
