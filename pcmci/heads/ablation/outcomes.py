"""How the runs of a sweep ended, and which of them stand for their row."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcmci.cache.schema import FEATURES
from pcmci.heads.ablation.sweep import Settings, Sweep, Trial, Variant
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.training.learning import HEADLINE
from pcmci.heads.training.run import Run

Row = dict[str, Any]
"""Of a table."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: with a run, or with a reason (and the step, where it diverged)."""

    trial: Trial
    run: Run | None
    reason: str = ""
    step: int | None = None


def choose(sweep: Sweep, outcomes: Sequence[Outcome], labels: str) -> dict[Variant, Settings]:
    """Of every variant the settings of training that were best on validation, by the label set's
    headline score, on average over seeds; a setting of which a seed failed comes after those that
    went well. The test split is not looked at. A variant without any run has its first setting."""
    chosen = {}
    for variant in sweep.variants:
        ranked = []
        for place, choice in enumerate(sweep.choices):
            runs = [o.run for o in of_choice(outcomes, variant, choice) if o.run]
            values = [
                value
                for run in runs
                if (value := run.metrics.get("val", {}).get(HEADLINE[labels])) is not None
            ]
            mean = statistics.fmean(values) if values else float("-inf")
            ranked.append((len(runs), mean, -place))
        chosen[variant] = sweep.choices[-max(ranked)[2]]
    return chosen


Kept = dict[Variant, list["Outcome | None"]]
"""Variant -> the chosen runs, one a seed, None where it failed."""


def of_choice(outcomes: Iterable[Outcome], variant: Variant, choice: Settings) -> Iterator[Outcome]:
    for outcome in outcomes:
        if (outcome.trial.variant, outcome.trial.tried) == (variant, choice):
            yield outcome


def by_seed(
    sweep: Sweep, outcomes: Sequence[Outcome], variant: Variant, choice: Settings
) -> list[Outcome | None]:
    found = {o.trial.seed: o for o in of_choice(outcomes, variant, choice) if o.run}
    return [found.get(seed) for seed in sweep.seeds]


def predictions_of(outcome: Outcome | None) -> Predictions | None:
    return outcome.run.predictions if outcome and outcome.run else None


def labels_seen(outcomes: Iterable[Outcome | None]) -> str:
    """`video:coin` where the video encoder's weights saw COIN's labels, "" where none saw any."""
    specs = [o.run.config["store"]["spec"] for o in outcomes if o and o.run]
    return ",".join(
        dict.fromkeys(
            f"{kind}:{name}"
            for spec in specs
            for kind in FEATURES
            for name in spec[kind].get("labels_seen", ())
        )
    )


def number(value: Any) -> float | None:
    """None for what could not be computed."""
    return None if np.isnan(value) else float(value)
