"""What a sweep is: its runs, and what is compared with what.

A *variant* is a row of the tables: a head, its order of stages where it has such, and its settings.
Of each, the settings of the training (rates and the like) are *tried*, all the same ones for all
variants, and validation chooses. Every choice is run with every seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from pcmci.cache.store import Store
from pcmci.errors import UsageError
from pcmci.heads.ablation.grid import Grid, Model, check_seeds, is_tried, matters
from pcmci.heads.catalogue import DEFAULT, check_owned, configure, overruled, owners, setting_name
from pcmci.heads.config import order_name
from pcmci.heads.training.recipe import Recipe

Settings = tuple[tuple[str, Any], ...]
"""Names and values, as a grid has them."""


def shown(settings: Settings) -> str:
    """`lr=0.003 batch_size=16`."""
    return " ".join(f"{name}={value}" for name, value in settings)


def model_name(head: str, order: tuple[str, ...]) -> str:
    """`ich,ici`, `none` or `mlp`: the order where the head has such, else the head."""
    return order_name(order) if head == DEFAULT else head


@dataclass(frozen=True)
class Variant:
    """order: the stages. settings: of the head, where the grid has several. head: its name.
    store: which of several stores, "" where there is one."""

    order: tuple[str, ...]
    settings: Settings = ()
    head: str = DEFAULT
    store: str = ""

    @property
    def order_name(self) -> str:
        """`ich,ici`, `none`, or nothing for a head that has no stages."""
        return order_name(self.order) if self.head == DEFAULT else ""

    @property
    def name(self) -> str:
        """`ich,ici`, `ich,ici relations=4`, `mlp`, `ich,ici @ x3d-m`."""
        model = model_name(self.head, self.order)
        at = f"@ {self.store}" if self.store else ""
        return " ".join(filter(None, [model, shown(self.settings), at]))


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
    models: Sequence[Model],
    seeds: Sequence[int],
    grid: Grid,
    labels: tuple[str, ...],
    values: Mapping[str, Any],
    *,
    reference: Model | None,
    precision: str,
    device: str,
    has_validation: bool,
    store: str = "",
) -> Sweep:
    """values: settings that are the same everywhere, as far as a head has them. reference: by
    default the model without stages, else the first. has_validation: whether the data set has a
    val split. store: its name among several.

    Raises UsageError for settings, for a reference that is not among the models, and where there
    is something to choose and no validation to choose by.
    """
    check_seeds(tuple(seeds))
    if "seed" in values:
        raise UsageError(f"seed={values['seed']}: a sweep takes `seeds`, a number or a list")
    twice = sorted(set(grid) & {setting_name(name) for name in values})
    if twice:
        raise UsageError(f"{twice[0]} is both in --grid and a setting of all runs: leave one out")
    check_owned({**values, **grid}, tuple(dict.fromkeys(head for head, _ in models)))
    of_heads = {name: chosen for name, chosen in grid.items() if not is_tried(name)}
    tried = {name: chosen for name, chosen in grid.items() if is_tried(name)}
    several = [name for name, chosen in tried.items() if len(chosen) > 1]
    if several and not has_validation and not values.get("validation", 0):
        raise UsageError(
            f"--grid {several[0]} is chosen on validation, and the data set has no val split: "
            "set a share of the training videos aside with --validation 0.1"
        )
    trials = []
    for head, order in models:
        own = {name: value for name, value in values.items() if head in (owners(name) or (head,))}
        mine = {n: v for n, v in of_heads.items() if not overruled(n, head, {**values, **grid})}
        biased = bool(own.get("order_bias")) or True in grid.get("order_bias", ())
        for settings in _different(head, order, mine, biased):
            for choice in _combinations(tried):
                for seed in seeds:
                    chosen = {**own, **dict(settings), **dict(choice), "seed": seed}
                    model, train = configure(order, labels, chosen, head)
                    recipe = Recipe(model, train, precision, device)
                    variant = Variant(order, settings, head, store)
                    trials.append(Trial(variant, choice, seed, recipe))
    if reference is None:
        reference = (DEFAULT, ()) if (DEFAULT, ()) in models else models[0]
    compared = [t.variant for t in trials if (t.variant.head, t.variant.order) == reference]
    if not compared:
        there = "; ".join(model_name(*model) for model in models)
        what = "orders" if all(head == DEFAULT for head, _ in models) else "heads and orders"
        raise UsageError(f"--reference {model_name(*reference)} is not among the {what}: {there}")
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


def _different(head: str, order: tuple[str, ...], grid: Grid, biased: bool) -> list[Settings]:
    """The combinations that matter for a model: without ich, no lambda makes a difference."""
    return _combinations(
        {
            name: chosen
            for name, chosen in grid.items()
            if matters(name, order, head, order_bias=biased)
        }
    )
