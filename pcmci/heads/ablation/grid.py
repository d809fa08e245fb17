"""The words of a sweep: which orders, which seeds, which values; torch-free, as config.py is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pcmci.errors import UsageError
from pcmci.heads.catalogue import (
    DEFAULT,
    HEADS,
    check_head,
    configure,
    owners,
    setting,
    setting_name,
)
from pcmci.heads.config import ORDERS, TrainConfig, parse_order

PAPER_ORDERS: tuple[tuple[str, ...], ...] = (
    (),
    ("ich",),
    ("ici",),
    ("ivc",),
    ("ich", "ici"),
    ("ich", "ici", "ivc"),
    ("ich", "ivc", "ici"),
    ("ici", "ich", "ivc"),
    ("ici", "ivc", "ich"),
    ("ivc", "ich", "ici"),
    ("ivc", "ici", "ich"),
)
"""The rows of the paper's tables of stages and of orders."""

Grid = dict[str, tuple[Any, ...]]
"""Setting, as `pcmci.heads.config.settings` names it -> the values to try."""

MATTERS_WITH = {
    "relations": ("ici", "ivc"),
    "transport": ("ich",),
    "mixing": ("ich", "ici", "ivc"),
    "mixer_noise": ("ich", "ici", "ivc"),
    "front_door": ("ivc",),
    "order_bias": ("ici",),
}
"""Settings, by the beginning of their name, that change nothing without one of these stages."""

MOST_SEEDS = 1000

NONE = "none"
"""Among heads: the default one without stages."""


def parse_orders(text: str) -> tuple[tuple[str, ...], ...]:
    """`all` (16), `paper` (the 11 of its tables), or orders as `"none; ich,ici; ici,ich"`.

    Raises UsageError for what is no order, and for an order that is there twice.
    """
    named = {"all": ORDERS, "paper": PAPER_ORDERS}
    if text.strip().lower() in named:
        return named[text.strip().lower()]
    try:
        # `ich;` is one order; none is asked for by its name
        orders = tuple(parse_order(part) for part in text.split(";") if part.strip())
    except UsageError as error:
        right = 'use all, paper or orders as "ich,ici;ici,ich"'
        raise UsageError(str(error).replace("--order ", "--orders ") + f"; {right}") from None
    return check_orders(orders)


def parse_heads(text: str) -> tuple[tuple[str, ...], bool]:
    """`all`, or heads as `pcmci,mlp`; and whether `none` is among them, which is `pcmci` without
    stages. Raises UsageError for an unknown head, and for one that is there twice."""
    names = named_heads(text)
    return tuple(dict.fromkeys(map(head_of, names))), NONE in names


def named_heads(text: str) -> tuple[str, ...]:
    """`parse_heads`, with `none` among the names as it was given."""
    names = [part.strip().lower() for part in text.split(",")]
    if names == ["all"]:
        return tuple(HEADS)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--heads {text!r}: {name} is there twice")
        try:
            check_head(head_of(name))
        except UsageError as error:
            raise UsageError(str(error).replace("--head ", "--heads ")) from None
    return tuple(names)


def head_of(name: str) -> str:
    """The head that a name among `--heads` means."""
    return DEFAULT if name == NONE else name


def check_orders(orders: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """`orders` itself. Raises UsageError for none at all, and for one that is there twice."""
    twice = sorted({",".join(o) or "none" for o in orders if orders.count(o) > 1})
    if twice or not orders:
        shown = f"{'; '.join(twice)} {'is' if len(twice) == 1 else 'are'} there twice"
        raise UsageError(f"--orders: {shown if twice else 'name one'}")
    return orders


Model = tuple[str, tuple[str, ...]]
"""A head, and its order of stages where it has such."""


def parse_models(
    heads: str | Sequence[str], orders: str | Sequence[tuple[str, ...] | str] | None
) -> tuple[Model, ...]:
    """What `heads` and `orders` ask for together. orders: None for all, but for `none` alone where
    that is among the heads and the head with stages is not.

    Raises UsageError as `parse_heads` and `parse_orders` do.
    """
    names = named_heads(heads if isinstance(heads, str) else ",".join(heads))
    if orders is None:
        which = ORDERS if DEFAULT in names else ((),)
    elif isinstance(orders, str):
        which = parse_orders(orders)
    else:
        which = check_orders(
            tuple(parse_order(o) if isinstance(o, str) else tuple(o) for o in orders)
        )
    if NONE in names and () not in which:
        which = ((), *which)
    return models_of(tuple(dict.fromkeys(map(head_of, names))), which)


def models_of(heads: Sequence[str], orders: Sequence[tuple[str, ...]]) -> tuple[Model, ...]:
    """Every head; that which has stages with every order."""
    return tuple(
        (head, order) for head in heads for order in (orders if head == DEFAULT else ((),))
    )


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` for the seeds 0 to 4; `3,7` or `3,` for these. Raises UsageError for anything else."""
    try:
        if "," in text:
            seeds = tuple(int(part) for part in text.split(",") if part.strip())
        else:
            seeds = tuple(range(int(text))) if 0 < int(text) <= MOST_SEEDS else ()
    except ValueError:
        seeds = ()
    return check_seeds(seeds, text)


def check_seeds(seeds: tuple[int, ...], shown: object = None) -> tuple[int, ...]:
    """`seeds` itself. Raises UsageError for none, for a negative one, and for one that is there
    twice: it would count as two."""
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        shown = list(seeds) if shown is None else shown
        raise UsageError(
            f"--seeds {shown!r}: use a number of seeds from 1 to {MOST_SEEDS}, or different seeds "
            "as 3,7"
        )
    return seeds


def parse_grid(texts: Sequence[str]) -> Grid:
    """`["lr=1e-3,3e-3", "transport.lambda=0.5,1"]` to values by setting.

    Raises UsageError for an unknown setting, a value that it refuses, and for a repetition.
    """
    grid: Grid = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--grid {text!r}: use SETTING=VALUE,VALUE as in lr=1e-3,3e-3")
        key = setting_name(name.strip())
        if key in grid:
            raise UsageError(f"--grid {text!r}: {key} is there twice; give all its values at once")
        entry = setting(key)[1]  # says so of an unknown one, with the nearest known one
        grid[key] = tuple(_value(entry, text, part.strip()) for part in values.split(","))
    return check_grid(grid)


def check_grid(grid: Grid) -> Grid:
    """`grid` itself. Raises UsageError as `parse_grid` does."""
    for key, values in grid.items():
        if key == "seed":
            raise UsageError("--grid seed: seeds are asked for with --seeds")
        if key == "validation":
            raise UsageError(
                "--grid validation: scores on different videos do not compare; set --validation"
            )
        if not values or len(set(values)) != len(values):
            raise UsageError(f"--grid {key}: {'a value is repeated' if values else 'no values'}")
        head = next(iter(owners(key)), DEFAULT)
        made = {configure((), (), {key: value}, head) for value in values}
        if len(made) < len(values):
            raise UsageError(f"--grid {key}: a value is repeated in another spelling")
    return grid


def is_tried(name: str) -> bool:
    """Whether a setting says how a run is trained (its values are tried, and validation chooses),
    and not what is trained (each value is a row of its own in the tables)."""
    return setting(name)[0] is TrainConfig


def matters(
    name: str, order: tuple[str, ...], head: str = DEFAULT, *, order_bias: bool = False
) -> bool:
    """Whether a setting can change anything in a head, with an order of stages where it has such.
    order_bias: whether ici looks at the VLM's posteriors, which the temperature is of.

    Raises UsageError for an unknown one.
    """
    owning = owners(name)
    if owning and head not in owning:
        return False
    if head != DEFAULT:  # whatever stages it has, no order says so
        return True
    name = name.removeprefix(f"{DEFAULT}_")
    if order_bias and name == "transport_temperature" and "ici" in order:
        return True
    for beginning, stages in MATTERS_WITH.items():
        if name.startswith(beginning):
            return any(stage in order for stage in stages)
    return True


def _value(entry: dataclasses.Field[Any], text: str, part: str) -> Any:
    kind: Any = type(entry.default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[part.lower()]
        return kind(part)
    except (ValueError, KeyError):
        right = {bool: "true or false", int: "whole numbers", float: "numbers"}[kind]
        raise UsageError(f"--grid {text!r}: {part!r} will not do; use {right}") from None
