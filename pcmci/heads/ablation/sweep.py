"""What a sweep is: its runs, and what is compared with what.

A *variant* is a row of the tables: an order of stages and the settings of the model. Of each, the
settings of the training (rates and the like) are *tried*, all the same ones for all variants, and
validation chooses. Every choice is run with every seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from pcmci.cache.store import Store
from pcmci.errors import UsageError
from pcmci.heads.ablation.grid import Grid, check_seeds, is_tried, matters
from pcmci.heads.config import configure, order_name, setting_name
from pcmci.heads.training.recipe import Recipe

Settings = tuple[tuple[str, Any], ...]
"""Names and values, as a grid has them."""


def shown(settings: Settings) -> str:
    """`lr=0.003 batch_size=16`."""
    return " ".join(f"{name}={value}" for name, value in settings)


@dataclass(frozen=True)
class Variant:
    """order: the stages. settings: of the model, where the grid has several."""

    order: tuple[str, ...]
    settings: Settings = ()

    @property
    def name(self) -> str:
        """`ich,ici` or `ich,ici relations=4`."""
        return " ".join(filter(None, [order_name(self.order), shown(self.settings)]))


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. tried: the settings of the training, where the grid has several."""

    variant: Variant
    tried: Settings
    seed: int
    recipe: Recipe

    @property
    def tried_name(self) -> str:
        """`lr=0.003`, or nothing where there is no choice."""
        return shown(self.tried)


@dataclass(frozen=True)
class Sweep:
    """trials: every run, variant by variant. reference: what the others are compared with."""

    trials: tuple[Trial, ...]
    reference: Variant
    seeds: tuple[int, ...]
    labels: tuple[str, ...]

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """The rows of the tables, in the order asked for."""
        return tuple(dict.fromkeys(trial.variant for trial in self.trials))

    @cached_property
    def choices(self) -> tuple[Settings, ...]:
        """What is tried of every variant."""
        return tuple(dict.fromkeys(trial.tried for trial in self.trials))


def plan_sweep(
    orders: Sequence[tuple[str, ...]],
    seeds: Sequence[int],
    grid: Grid,
    labels: tuple[str, ...],
    values: Mapping[str, Any],
    *,
    reference: tuple[str, ...] | None,
    precision: str,
    device: str,
    has_validation: bool,
) -> Sweep:
    """values: settings that are the same everywhere. reference: an order, by default the one
    without stages, else the first. has_validation: whether the data set has a val split.

    Raises UsageError for settings, for a reference that is not among the orders, and where there
    is something to choose and no validation to choose by.
    """
    check_seeds(tuple(seeds))
    if "seed" in values:
        raise UsageError(f"seed={values['seed']}: a sweep takes `seeds`, a number or a list")
    twice = sorted(set(grid) & {setting_name(name) for name in values})
    if twice:
        raise UsageError(f"{twice[0]} is both in --grid and a setting of all runs: leave one out")
    models = {name: chosen for name, chosen in grid.items() if not is_tried(name)}
    tried = {name: chosen for name, chosen in grid.items() if is_tried(name)}
    several = [name for name, chosen in tried.items() if len(chosen) > 1]
    if several and not has_validation and not values.get("validation", 0):
        raise UsageError(
            f"--grid {several[0]} is chosen on validation, and the data set has no val split: "
            "set a share of the training videos aside with --validation 0.1"
        )
    trials = []
    for order in orders:
        for settings in _different(order, models):
            for choice in _combinations(tried):
                for seed in seeds:
                    chosen = {**values, **dict(settings), **dict(choice), "seed": seed}
                    model, train = configure(order, labels, chosen)
                    recipe = Recipe(model, train, precision, device)
                    trials.append(Trial(Variant(order, settings), choice, seed, recipe))
    if reference is None:
        reference = () if () in orders else orders[0]
    compared = [trial.variant for trial in trials if trial.variant.order == reference]
    if not compared:
        there = "; ".join(order_name(order) for order in orders)
        raise UsageError(f"--reference {order_name(reference)} is not among the orders: {there}")
    return Sweep(tuple(trials), compared[0], tuple(seeds), labels)


def groups(
    trials: Sequence[Trial], store: Store, width: Callable[[Recipe], int]
) -> list[list[Trial]]:
    """Trials that can be stacked, the longest work first. width: of a stack of such recipes.

    Trials that are the same run (another name for it) are there once.
    """
    once = {trial.recipe.key(store): trial for trial in trials}
    by_key: dict[Recipe, list[Trial]] = {}
    for trial in once.values():
        by_key.setdefault(trial.recipe.stack_key, []).append(trial)
    found = []
    for key, group in by_key.items():
        most = max(1, width(key))
        found += [group[start : start + most] for start in range(0, len(group), most)]
    return sorted(found, key=lambda group: -len(group[0].variant.order) * len(group))


def _combinations(grid: Grid) -> list[Settings]:
    return [tuple(zip(grid, chosen, strict=True)) for chosen in product(*grid.values())]


def _different(order: tuple[str, ...], models: Grid) -> list[Settings]:
    """The combinations that matter for an order: without ich, no lambda makes a difference."""
    return _combinations({name: chosen for name, chosen in models.items() if matters(name, order)})
