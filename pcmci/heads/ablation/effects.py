"""The table `effects`: a row a variant, label set and split of twins, over seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pcmci.heads.ablation.outcomes import Kept, Row, number, predictions_of
from pcmci.heads.ablation.sweep import Sweep, Variant
from pcmci.heads.catalogue import shown_name
from pcmci.heads.scoring.bootstrap import Interval
from pcmci.heads.scoring.effects import Effect, effects_report, removal, twin_effects
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.twins import CAUSE, variable_of


def effects(
    sweep: Sweep, kept: Mapping[str, Kept], same: Mapping[str, Collection[str]], resamples: int
) -> Iterator[Row]:
    """Nothing where no store has twins. same: store -> ids of twins that differ in nothing, see
    `pcmci.heads.training.unchanged`. Beside each effect its difference to that of the reference,
    over the seeds that both have, and whether it removes the confounder."""
    for labels, by_variant in kept.items():
        runs = {
            variant: {
                seed: seen
                for seed, outcome in zip(sweep.seeds, outcomes, strict=True)
                if (seen := predictions_of(outcome))
            }
            for variant, outcomes in by_variant.items()
        }
        for variant, mine in runs.items():
            if not mine:
                continue
            unchanged = same.get(variant.store, ())
            found = twin_effects(list(mine.values()), labels, unchanged, resamples)
            compared = (
                _against(
                    mine,
                    runs[sweep.reference],
                    labels,
                    {*unchanged, *same.get(sweep.reference.store, ())},
                    resamples,
                )
                if found and variant != sweep.reference
                else {}
            )
            for split, report in effects_report(found, resamples).items():
                yield {
                    "labels": labels,
                    "variant": variant.name,
                    "head": variant.head,
                    "head shown": shown_name(variant.head),
                    "order": variant.order_name,
                    "at": variant.store,
                    "split": split,
                    "differs": report["differs"],
                    "reference": _is_reference(sweep, variant),
                    "seeds": len(mine),
                    **_spread("cde", report["cde"]),
                    **_spread("flips", report["flips"]),
                    "videos": report["videos"],
                    "pairs": report["pairs"],
                    "why": report["why"],
                    **_spread("ratio", report.get("ratio")),
                    "no ratio": report.get("no ratio", ""),
                    **compared.get(split, dict.fromkeys(_COMPARED)),
                }


_COMPARED = ("difference", "difference low", "difference high", "removes")


def _is_reference(sweep: Sweep, variant: Variant) -> bool:
    return variant == sweep.reference


def _against(
    mine: Mapping[int, Predictions],
    its: Mapping[int, Predictions],
    labels: str,
    same: Collection[str],
    resamples: int,
) -> dict[str, dict[str, Any]]:
    """split -> how a variant's effects differ from those of the reference."""
    both = [seed for seed in mine if seed in its]
    if not both:
        return {}
    of_head, of_control = (
        twin_effects([runs[seed] for seed in both], labels, same, resamples) for runs in (mine, its)
    )
    cause = next((split for split in of_head if variable_of(split) == CAUSE), None)
    found = {}
    for split, effect in of_head.items():
        control = of_control[split]
        if effect.cde is None or control.cde is None:
            continue
        if not (effect.counted & control.counted).any():
            continue  # two stores that lack features of different videos
        causes: tuple[Effect | None, Effect | None] = (None, None)
        if cause:
            causes = of_head[cause], of_control[cause]
        judged = removal(effect, control, *causes, resamples=resamples)
        found[split] = {
            **_of_interval("difference", judged.cde),
            "removes": None if split == cause else judged.removes,
        }
    return found


def _of_interval(name: str, interval: Interval) -> dict[str, float | None]:
    ends = {"": interval.value, " low": interval.low, " high": interval.high}
    return {f"{name}{end}": number(value) for end, value in ends.items()}


def _spread(name: str, found: Mapping[str, float | None] | None) -> dict[str, float | None]:
    ends = {"": "value", " low": "low", " high": "high"}
    return {f"{name}{end}": found[key] if found else None for end, key in ends.items()}
