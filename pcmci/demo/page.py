"""What a demo found, as a page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pcmci.cache.schema import EncoderSpec, Status
from pcmci.cache.store import Store
from pcmci.extract.datasets.records import Dataset, Video
from pcmci.extract.video.frames import iter_frames
from pcmci.heads.scoring.bootstrap import Interval
from pcmci.heads.scoring.metrics import TAU, coprediction, implausible_pairs
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import score, sigmoid
from pcmci.heads.training.run import Run
from pcmci.report import figures
from pcmci.report.effects import Report, effects_section
from pcmci.report.page import Figure, Noted, Page, Section, Strip, Table
from pcmci.report.table import percent, signed

SHIFT = "shift-all"
FRAMES = 8
TAUS = tuple(np.round(np.arange(0.2, 0.96, 0.05), 2))
PAIRS = 6
"""Implausible pairs that are shown of each order."""

Differences = Mapping[str, Mapping[str, Mapping[str, Interval]]]


def demo_page(
    dataset: Dataset,
    store: Store,
    runs: Mapping[str, Run],
    against_none: Differences,
    commands: dict[str, str],
) -> Page:
    """runs: by order, `none` first. commands: what made it, what one would type next."""
    predictions = {order: run.predictions for order, run in runs.items()}
    return Page(
        title="The kitchen world: are the confounders gone?",
        lead="Videos drawn from a causal model whose three confounders are known: a thing that "
        "comes with an activity (H), labels that are spoken of alike (I), and looks that go with "
        "an activity (C). The shifted splits show the test videos again with one of these links "
        "broken, or all three, and all else the same; the split cause shows another activity, "
        "and all else the same.",
        sections=[
            _pair(dataset, predictions),
            _scores(runs, against_none),
            *_effects(runs, store),
            _densities(predictions),
            _training(runs),
        ],
        facts=_facts(store, runs),
        commands=commands,
    )


def _pair(dataset: Dataset, predictions: Mapping[str, Predictions]) -> Section:
    """A test video and its twin, the first whose answer without stages is right and then wrong."""
    none = predictions["none"]
    twins = _twins(none)
    flipped = [(a, b) for a, b in twins if _right(none, a) and not _right(none, b)]
    chosen = (flipped or twins)[0]
    by_id = {video.id: video for video in dataset.videos}
    names = none.labels["activity"].names
    strips = []
    for row, what in zip(chosen, ("as filmed", "its twin, all three links broken"), strict=True):
        video = by_id[str(none.ids[row])]
        answers = [
            (f"{order}: {names[int(_logits(seen)[row].argmax())]}", _right(seen, row))
            for order, seen in predictions.items()
        ]
        strips.append(Strip(_frames(video), f"{video.activity}, {what}", answers))
    counted = (
        f"Without stages, {len(flipped)} of {len(twins)} test videos are recognised as they are "
        "and mistaken as their twins; this is the first of them."
        if flipped
        else f"Without stages, none of {len(twins)} test videos is mistaken only as its twin; this "
        "is the first test video."
    )
    return Section(
        "The same performance twice",
        ["What is done is the same, frame by frame; what comes with it is not.", counted],
        strips,
    )


def _twins(seen: Predictions) -> list[tuple[int, int]]:
    """Rows of every test video and its twin."""
    row_of = {str(name): row for row, name in enumerate(seen.ids)}
    test = np.flatnonzero(seen.splits == "test")
    return [(int(row), row_of[f"{seen.ids[row]}_{SHIFT}"]) for row in test]


def _logits(seen: Predictions) -> np.ndarray:
    return seen.labels["activity"].logits


def _right(seen: Predictions, row: int) -> bool:
    return bool(_logits(seen)[row].argmax() == seen.labels["activity"].target[row])


def _frames(video: Video) -> np.ndarray:
    assert isinstance(video.path, Path)  # the demo wrote it
    found = {place: frame for places, frame in iter_frames(video.path, FRAMES) for place in places}
    return np.stack([found[place] for place in sorted(found)])


def _scores(runs: Mapping[str, Run], against_none: Differences) -> Section:
    splits = [split for split in runs["none"].metrics if split != "val"]
    scores = {order: {split: run.metrics[split] for split in splits} for order, run in runs.items()}
    tables = [
        Table(
            ["order", *splits],
            [
                [order, *(_cell(scores[order][split][name], against_none[name], order, split)
                          for split in splits)]
                for order in runs
            ],
            f"{name} in percent; under it the difference to no stage with its 95 % interval "
            "(paired bootstrap over test videos).",
        )
        for name in against_none
    ]  # fmt: skip
    drawing = figures.svg(figures.scores_by_split(scores, ["Acc", "mAP"]))
    return Section(
        "Orders of stages",
        [
            "One seed: the intervals are over test videos alone, and another seed moves a score "
            "about as far. They cannot rank the orders; docs/evidence.md has the study that can, "
            "with all 16 orders and five seeds."
        ],
        [
            Figure(drawing, "How far the marks of a row lie apart is what a broken link costs."),
            *tables,
        ],
    )


def _effects(runs: Mapping[str, Run], store: Store) -> list[Section]:
    """How far each order goes by each confounder, and by what is done."""
    by_labels: dict[str, dict[str, Report]] = {}
    for order, run in runs.items():
        for labels, report in run.effects_on(store).items():
            by_labels.setdefault(labels, {})[order] = report
    one_seed = "One seed: the intervals are over test videos alone."
    return [effects_section(by_labels, one_seed)] if by_labels else []


def _cell(
    value: float | None, differences: Mapping[str, Mapping[str, Interval]], order: str, split: str
) -> str | Noted:
    if split not in differences.get(order, {}):
        return percent(value)
    return Noted(percent(value), signed(differences[order][split]))


def _densities(predictions: Mapping[str, Predictions]) -> Section:
    steps = predictions["none"].labels["steps"]
    test = (predictions["none"].splits == "test") & predictions["none"].present
    curves, truth = {}, []
    for order, seen in predictions.items():
        scores = score(seen, TAUS)["test"]
        curves[order] = [_number(scores[f"ODD@{tau:.4g}"]) for tau in TAUS]
        truth = [_number(scores[f"ODD@{tau:.4g} truth"]) for tau in TAUS]
    q = {
        order: coprediction(sigmoid(seen.labels["steps"].logits[test]))
        for order, seen in predictions.items()
    }
    last = list(predictions)[-1]
    shown = {"none": q["none"], last: q[last], "ground truth": coprediction(steps.target[test])}
    matrices, hovers = figures.coprediction_matrices(shown, steps.names)
    return Section(
        "Which steps are predicted together",
        [
            "ODD is the share of pairs of steps of which one is predicted wherever the other is. "
            "Real procedures do co-occur: lower is better only above the dashed curve."
        ],
        [
            Figure(figures.svg(figures.density_curves(curves, truth, TAUS)), "Test videos."),
            Figure(
                figures.svg(matrices),
                "Co-prediction Q on the test videos. Point at a cell for its names.",
                hovers,
            ),
            _implausible(q, steps.q_train, steps.names),
        ],
    )


def _number(value: float | None) -> float:
    """A score for a drawing, which leaves a gap where it is undefined."""
    return float("nan") if value is None else value


def _implausible(q: Mapping[str, np.ndarray], q_train: np.ndarray, names: tuple[str, ...]) -> Table:
    rows: list[list[str]] = []
    for order, matrix in q.items():
        above = np.argwhere(implausible_pairs(matrix, q_train, TAU))
        worst = sorted(above.tolist(), key=lambda pair: -matrix[pair[0], pair[1]])[:PAIRS]
        rows += [
            [order, names[i], names[j], f"{matrix[i, j]:.2f}", f"{q_train[i, j]:.2f}"]
            for i, j in worst
        ]
    return Table(
        ["order", "predicted", "given", "Q", "Q of the training labels"],
        rows,
        f"Implausible pairs: above {TAU} in the prediction and not in the training labels; of each "
        f"order the {PAIRS} strongest.",
    )


def _training(runs: Mapping[str, Run]) -> Section:
    losses = {
        labels: {order: run.heads[labels]["loss"] for order, run in runs.items()}
        for labels in runs["none"].heads
    }
    rows = [
        [order, labels, facts["trained parameters"], facts["chosen epoch"], facts["chosen by"],
         round(facts["seconds"], 1)]
        for order, run in runs.items()
        for labels, facts in run.heads.items()
    ]  # fmt: skip
    return Section(
        "Training",
        [],
        [
            Figure(figures.svg(figures.training_curves(losses)), "Loss an epoch."),
            Table(["order", "labels", "parameters", "epoch", "chosen by", "seconds"], rows),
        ],
    )


def _encoder(spec: EncoderSpec) -> str:
    return f"{spec.name}, weights {spec.weights} (sha256 {spec.sha256[:12]})"


def _facts(store: Store, runs: Mapping[str, Run]) -> dict[str, str]:
    spec = store.spec
    counts = ", ".join(f"{store.counts[s]} {s.name.lower()}" for s in Status if store.counts[s])
    some = next(iter(runs.values())).config
    return {
        "videos": f"{len(store)}: {counts}",
        "frames a video": str(spec.sampling.frames),
        "VLM": _encoder(spec.vlm),
        "video encoder": _encoder(spec.video),
        "store": f"{store.path} (fingerprint {store.fingerprint[:12]})",
        "runs": ", ".join(f"{run.path} ({run.bytes / 1e6:.1f} MB)" for run in runs.values()),
        "training": f"{some['train']['epochs']} epochs, learning rate {some['train']['lr']}",
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
