"""What a sweep found, as tables of plain rows: all that a report needs.

`results`: a row a run. `summary`: a row a variant, score and split, over seeds. And of the chosen
runs, on the test split: `densities` (ODD over tau), `classes` (average precision), `pairs`
(implausible ones), `reliability`, `epochs` (training losses). The co-prediction matrices are
arrays.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pcmci.heads.bootstrap import SCORES, differences
from pcmci.heads.config import STAGES, order_name, settings
from pcmci.heads.learning import HEADLINE
from pcmci.heads.metrics import TAU as HEADLINE_TAU
from pcmci.heads.metrics import (
    calibration_error,
    coprediction,
    implausible_pairs,
    reliability,
)
from pcmci.heads.predictions import Predictions
from pcmci.heads.run import Run
from pcmci.heads.scoring import Scores, class_ap, score, sigmoid, softmax
from pcmci.heads.sweep import Settings, Sweep, Trial, Variant, shown
from pcmci.plain import plain, plain_json

PAIRS = 20
"""Implausible pairs kept of each variant, the strongest."""
MOST_LABELS_OF_A_MATRIX = 200
"""With more labels, the co-prediction of the reference and one other variant is kept, not all."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: with a run, or with a reason (and the step, where it diverged)."""

    trial: Trial
    run: Run | None
    reason: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Results:
    """tables: name -> rows. matrices: `names`, `truth`, `train` and `q/<variant>`, the
    co-prediction [N, N]; empty without steps."""

    tables: dict[str, list[Row]]
    matrices: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """`<table>.parquet` each, `results.csv`, and `coprediction.npz`; none of an earlier sweep
        stays."""
        for old in folder.glob("*.parquet"):
            old.unlink()
        for name, rows in self.tables.items():
            table = pa.Table.from_pylist(_even(rows))
            pa.parquet.write_table(table, folder / f"{name}.parquet")
            if name == "results":
                pa.csv.write_csv(table, folder / "results.csv")
        np.savez_compressed(folder / "coprediction.npz", **self.matrices)  # type: ignore[arg-type]


def collect(
    sweep: Sweep,
    outcomes: Sequence[Outcome],
    taus: Sequence[float],
    *,
    resamples: int,
    progress: bool,
    dataset: str,
) -> Results:
    """Rows of everything. outcomes: one a trial, in the sweep's order. resamples: of the bootstrap
    of differences. dataset: its name, which says what the paper reports."""
    scores = {id(outcome): _scores(outcome, taus) for outcome in outcomes}
    chosen = {labels: choose(sweep, outcomes, labels) for labels in sweep.labels}
    kept = {
        labels: {
            variant: _by_seed(sweep, outcomes, variant, choice)
            for variant, choice in choices.items()
        }
        for labels, choices in chosen.items()
    }
    tables = {
        "results": [
            _result(outcome, scores[id(outcome)], chosen, sweep.labels) for outcome in outcomes
        ],
        "summary": list(_summary(sweep, kept, chosen, scores, resamples, progress, dataset)),
        "epochs": list(_epochs(kept)),
        "reliability": list(_reliability(kept)),
    }
    matrices: dict[str, np.ndarray] = {}
    if "steps" in kept:
        tables["densities"] = list(_densities(kept["steps"], scores, taus))
        tables["classes"] = list(_classes(kept["steps"]))
        matrices, tables["pairs"] = _coprediction(kept["steps"], sweep.reference)
    return Results({name: rows for name, rows in tables.items() if rows}, matrices)


def choose(sweep: Sweep, outcomes: Sequence[Outcome], labels: str) -> dict[Variant, Settings]:
    """Of every variant the settings of training that were best on validation, by the label set's
    headline score, on average over seeds; a setting of which a seed failed comes after those that
    went well. The test split is not looked at. A variant without any run has its first setting."""
    chosen = {}
    for variant in sweep.variants:
        ranked = []
        for place, choice in enumerate(sweep.choices):
            runs = [o.run for o in _of(outcomes, variant, choice) if o.run]
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


def _of(outcomes: Iterable[Outcome], variant: Variant, choice: Settings) -> Iterator[Outcome]:
    for outcome in outcomes:
        if (outcome.trial.variant, outcome.trial.tried) == (variant, choice):
            yield outcome


def _by_seed(
    sweep: Sweep, outcomes: Sequence[Outcome], variant: Variant, choice: Settings
) -> list[Outcome | None]:
    found = {o.trial.seed: o for o in _of(outcomes, variant, choice) if o.run}
    return [found.get(seed) for seed in sweep.seeds]


def _predictions(outcome: Outcome | None) -> Predictions | None:
    return outcome.run.predictions if outcome and outcome.run else None


def _scores(outcome: Outcome, taus: Sequence[float]) -> dict[str, Scores]:
    run = outcome.run
    return score(run.predictions, sorted({*taus, HEADLINE_TAU})) if run else {}


def _result(
    outcome: Outcome,
    scores: Mapping[str, Scores],
    chosen: Mapping[str, Mapping[Variant, Settings]],
    labels: tuple[str, ...],
) -> Row:
    trial, run = outcome.trial, outcome.run
    order = trial.variant.order
    row: Row = {
        "variant": trial.variant.name,
        "order": order_name(order),
        **{stage: order.index(stage) + 1 if stage in order else None for stage in STAGES},
        "seed": trial.seed,
        "tried": trial.tried_name,
        "status": "done" if run else "failed",
        "reason": outcome.reason,
        "failed step": outcome.step,
        **{f"chosen for {name}": chosen[name][trial.variant] == trial.tried for name in labels},
        "labels": ",".join(labels),
        **_settings(trial),
    }
    for split, values in scores.items():
        row |= {f"{split}/{name}": value for name, value in values.items()}
    if run is None:
        return row
    for name, facts in run.heads.items():
        best = facts["best-on-test"]
        row |= {
            f"{name}/{key}": facts[key]
            for key in (
                "trained parameters",
                "training videos",
                "features",
                "chosen epoch",
                "chosen by",
            )
        }
        row[f"{name}/best-on-test"] = best["value"] if best else None
        row[f"{name}/seconds"] = facts["seconds"]
    machine, store = run.config["machine"], run.config["store"]
    row["seconds"] = sum(facts["seconds"] for facts in run.heads.values())
    row |= {name: machine.get(name) for name in MACHINE}
    row |= {
        "run": str(run.path),
        "key": run.config["key"],
        "created": run.config["created"],
        "store": plain(store["path"]),
        "fingerprint": store["fingerprint"],
        "content_digest": store["content_digest"],
    }
    return row


MACHINE = ("device", "precision", "threads", "stack", "torch", "pcmci", "commit")


def _settings(trial: Trial) -> Row:
    recipe = trial.recipe
    values = {}
    for name, (config, entry) in settings().items():
        holder = {type(x): x for x in (recipe.model, recipe.train, recipe.model.transport)}[config]
        values[name] = getattr(holder, entry.name)
    return {name: value for name, value in values.items() if name != "seed"}


def _summary(
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
    for name, (labels, _) in SCORES.items():
        if labels not in kept:
            continue
        splits = dict.fromkeys(split for by_split in scores.values() for split in by_split)
        for variant, outcomes in kept[labels].items():
            there = [scores[id(outcome)] for outcome in outcomes if outcome]
            for split in splits:
                values = [v for by in there if (v := by[split].get(name)) is not None]
                interval = against.get(name, {}).get(variant.name, {}).get(split)
                yield {
                    "dataset": dataset,
                    "variant": variant.name,
                    "order": order_name(variant.order),
                    "settings": shown(variant.settings),
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
                        key: getattr(interval, attribute) if interval else None
                        for key, attribute in (
                            ("difference", "value"), ("low", "low"), ("high", "high"),
                        )
                    },
                    "truth": next((by[split].get(f"{name} truth") for by in there), None),
                    "excludes zero": interval.excludes_zero if interval else None,
                    "coverage": there[0][split]["coverage"] if there else None,
                }  # fmt: skip


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
        variant.name: [_predictions(outcome) for outcome in outcomes]
        for variant, outcomes in kept.items()
    }
    scores = [name for name, (of, _) in SCORES.items() if of == labels]
    return differences(predictions, sweep.reference.name, resamples, progress, scores)


def _epochs(kept: Mapping[str, Kept]) -> Iterator[Row]:
    for labels, by_variant in kept.items():
        for variant, outcome, run in _runs(by_variant):
            for epoch, loss in enumerate(run.heads[labels]["loss"], start=1):
                yield {
                    "labels": labels, "variant": variant.name, "seed": outcome.trial.seed,
                    "epoch": epoch, "loss": loss,
                }  # fmt: skip


def _runs(by_variant: Kept) -> Iterator[tuple[Variant, Outcome, Run]]:
    for variant, outcomes in by_variant.items():
        for outcome in outcomes:
            if outcome and outcome.run:
                yield variant, outcome, outcome.run


def _densities(
    by_variant: Kept, scores: Mapping[int, dict[str, Scores]], taus: Sequence[float]
) -> Iterator[Row]:
    for variant, outcome, _ in _runs(by_variant):
        for split, values in scores[id(outcome)].items():
            for tau in taus:
                name = f"ODD@{tau:.4g}"
                if split != "val" and name in values:
                    yield {
                        "variant": variant.name, "seed": outcome.trial.seed, "split": split,
                        "tau": tau, "odd": values[name], "truth": values[f"{name} truth"],
                        "implausible": values[f"{name} implausible"],
                    }  # fmt: skip


def shown_split(predictions: Predictions) -> str:
    """`test`, or the first split that did not choose."""
    splits = [split for split in dict.fromkeys(predictions.splits.tolist()) if split != "val"]
    return "test" if "test" in splits or not splits else splits[0]


def _classes(by_variant: Kept) -> Iterator[Row]:
    for variant, outcomes in by_variant.items():
        found: list[np.ndarray] = []
        positive: np.ndarray = np.zeros(0)
        names: tuple[str, ...] = ()
        for seen in filter(None, map(_predictions, outcomes)):
            rows = seen.splits == shown_split(seen)
            part = seen.labels["steps"]
            found.append(class_ap(part, rows))
            positive, names = part.target[rows].sum(0), part.names
        if found:
            means = np.mean(found, axis=0)
            for name, ap, count in zip(names, means, positive, strict=True):
                yield {
                    "variant": variant.name, "class": name, "positive videos": int(count),
                    "AP": None if np.isnan(ap) else float(ap),
                }  # fmt: skip


def _reliability(kept: Mapping[str, Kept]) -> Iterator[Row]:
    """Of all seeds together. For activities: how often the likeliest is right; for steps: how
    often a step with this probability is there."""
    for labels, by_variant in kept.items():
        for variant, outcomes in by_variant.items():
            pairs = [
                _confidence(labels, seen) for seen in filter(None, map(_predictions, outcomes))
            ]
            if not pairs:
                continue
            confidence, correct = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
            means, shares, counts = reliability(confidence, correct)
            error = calibration_error(means, shares, counts)
            for place, (mean, share, count) in enumerate(zip(means, shares, counts, strict=True)):
                if count:
                    yield {
                        "labels": labels, "variant": variant.name, "bin": place,
                        "confidence": float(mean), "correct": float(share), "count": int(count),
                        "calibration error": error,
                    }  # fmt: skip


def _confidence(labels: str, seen: Predictions) -> tuple[np.ndarray, np.ndarray]:
    part = seen.labels[labels]
    rows = (seen.splits == shown_split(seen)) & seen.present
    logits, target = part.logits[rows], part.target[rows]
    if labels == "activity":
        logits, target = logits[target >= 0], target[target >= 0]
        p = softmax(logits) if len(logits) else logits
        return p.max(1, initial=0), p.argmax(1) == target
    return sigmoid(logits).ravel(), target.astype(bool).ravel()


def _coprediction(by_variant: Kept, reference: Variant) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Q, the mean over seeds, of the variants, the truth and the training labels; and the
    implausible pairs, the strongest of each variant."""
    matrices: dict[str, np.ndarray] = {}
    side_by_side = [reference, _whole(list(by_variant))]
    above: dict[Variant, dict[tuple[int, int], float]] = {}
    for variant, outcomes in by_variant.items():
        found = []
        for seen in filter(None, map(_predictions, outcomes)):
            part = seen.labels["steps"]
            videos = (seen.splits == shown_split(seen)) & seen.present
            if not videos.any() or len(part.names) < 2:
                continue
            found.append(coprediction(sigmoid(part.logits[videos])))
            if "truth" not in matrices:
                matrices["names"] = np.array(part.names)
                matrices["truth"] = coprediction(part.target[videos]).astype(np.float32)
                matrices["train"] = part.q_train.astype(np.float32)
        if not found:
            continue
        q = np.mean(found, axis=0)
        if variant in side_by_side or len(q) <= MOST_LABELS_OF_A_MATRIX:
            matrices[f"q/{variant.name}"] = q.astype(np.float32)
        pairs = np.argwhere(implausible_pairs(q, part.q_train, HEADLINE_TAU)).tolist()
        above[variant] = {(i, j): float(q[i, j]) for i, j in pairs}
    return matrices, list(_pairs(above, matrices))


def _pairs(
    above: Mapping[Variant, Mapping[tuple[int, int], float]], matrices: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """Of each variant its strongest pairs, and those that most variants share."""
    shared = Counter(pair for pairs in above.values() for pair in pairs)
    common = {pair for pair, _ in shared.most_common(PAIRS)}
    for variant, pairs in above.items():
        strongest = sorted(pairs, key=lambda pair: -pairs[pair])
        for pair in [p for k, p in enumerate(strongest) if k < PAIRS or p in common]:
            i, j = pair
            yield {
                "variant": variant.name,
                "predicted": str(matrices["names"][i]),
                "given": str(matrices["names"][j]),
                "q": pairs[pair],
                "q_train": _number(matrices["train"][pair]),
                "q_truth": _number(matrices["truth"][pair]),
                "pairs": len(pairs),
                "variants with it": shared[pair],
            }


def _whole(variants: list[Variant]) -> Variant:
    """The paper's own order where it is there, else the one asked for last."""
    return next((v for v in variants if v.order == STAGES), variants[-1])


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _even(rows: list[Row]) -> list[Row]:
    """Every row with all columns, in the order in which they came up."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """`sweep.json`: where the rows came from."""
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=_plain)
    (folder / "sweep.json").write_text(plain_json(text) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
