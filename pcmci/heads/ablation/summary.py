"""The table `summary`: a row a variant, score and split, over seeds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcmci.heads.ablation.outcomes import Kept, Outcome, Row, labels_seen, number, predictions_of
from pcmci.heads.ablation.sweep import Settings, Sweep, Trial, Variant, shown
from pcmci.heads.catalogue import shown_name
from pcmci.heads.config import ModelConfig
from pcmci.heads.scoring.bootstrap import SCORES, differences
from pcmci.heads.scoring.scores import Scores, why_undefined


def summary(
    sweep: Sweep,
    kept: Mapping[str, Kept],
    chosen: Mapping[str, Mapping[Variant, Settings]],
    scores: Mapping[int, dict[str, Scores]],
    resamples: int,
    progress: bool,
    dataset: str,
) -> Iterator[Row]:
    against = {
        name: found
        for labels in kept
        for name, found in _differences(sweep, kept[labels], labels, resamples, progress).items()
    }
    ours = {trial.variant: _is_ours(trial) for trial in sweep.trials}
    for name, (labels, _) in SCORES.items():
        if labels not in kept:
            continue
        splits = dict.fromkeys(split for by_split in scores.values() for split in by_split)
        for variant, outcomes in kept[labels].items():
            there = [scores[id(outcome)] for outcome in outcomes if outcome]
            for split in splits:
                why = [why_undefined(by[split], name) for by in there]
                values = [v for by in there if (v := by[split].get(name)) is not None]
                found = against.get(name, {}).get(variant.name, {}).get(split)
                interval = found if values else None
                yield {
                    "dataset": dataset,
                    "variant": variant.name,
                    "head": variant.head,
                    "head shown": shown_name(variant.head),
                    "order": variant.order_name,
                    "at": variant.store,
                    "settings": shown(variant.settings),
                    "ours": ours.get(variant, False),
                    "score": name,
                    "split": split,
                    "reference": variant == sweep.reference,
                    "settings tried": len(sweep.choices),
                    "chosen by": _chosen_by(sweep, there),
                    "chosen setting": shown(chosen[labels][variant]),
                    "seeds": len(values),
                    "failed": len(outcomes) - len(there),
                    "mean": statistics.fmean(values) if values else None,
                    "sd": statistics.stdev(values) if len(values) > 1 else None,
                    **{
                        key: number(getattr(interval, attribute)) if interval else None
                        for key, attribute in (
                            ("difference", "value"), ("low", "low"), ("high", "high"),
                        )
                    },
                    "truth": next((by[split].get(f"{name} truth") for by in there), None),
                    "excludes zero": interval.excludes_zero
                    if interval and interval.known
                    else None,
                    "undefined": next(filter(None, why), ""),
                    "trained parameters": _mean_fact(outcomes, labels, "trained parameters"),
                    "seconds": _mean_fact(outcomes, labels, "seconds"),
                    "coverage": there[0][split]["coverage"] if there else None,
                    "labels seen": labels_seen(outcomes),
                }  # fmt: skip


def _mean_fact(outcomes: Sequence[Outcome | None], labels: str, name: str) -> float | None:
    """Of the runs that went well."""
    found = [o.run.heads[labels][name] for o in outcomes if o and o.run]
    return statistics.fmean(found) if found else None


def _chosen_by(sweep: Sweep, there: Sequence[Mapping[str, Scores]]) -> str:
    if len(sweep.choices) == 1:
        return "only one"
    return "validation" if any("val" in by_split for by_split in there) else "nothing"


def _differences(
    sweep: Sweep, kept: Kept, labels: str, resamples: int, progress: bool
) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Of the scores of a label set: score -> variant -> split -> interval."""
    if not resamples:
        return {}
    predictions = {
        variant.name: [predictions_of(outcome) for outcome in outcomes]
        for variant, outcomes in kept.items()
    }
    scores = [name for name, (of, _) in SCORES.items() if of == labels]
    return differences(predictions, sweep.reference.name, resamples, progress, scores)


def _is_ours(trial: Trial) -> bool:
    """Whether a row of the paper's head has settings that are not the paper's; which parts are
    tuned is a row of its own there too."""
    model = trial.recipe.model
    if not isinstance(model, ModelConfig):
        return False
    return dataclasses.replace(model, tune="all") != ModelConfig(order=trial.variant.order)
