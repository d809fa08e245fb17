"""Are the confounders gone? All orders, seeds, labels and baselines on the kitchen world.

    python benchmarks/causal_evidence.py --out /tmp/evidence            about two hours on 2 cores
    python benchmarks/causal_evidence.py --out /tmp/evidence --quick    minutes, to see it run

1. The world at its own knobs: all 16 orders x seeds on the test and on every shift, with
   differences to the empty order (paired bootstrap over sessions), beside the baselines that a
   reviewer would ask for.
2. One knob at a time from 0 to 1, the others at 0: does the stage that is meant for a confounder
   help as that confounder grows?

Worlds, stores and runs are kept under --out: the same command goes on where it was stopped. The
tables go into docs/evidence.md, between its two markers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a run a core: they are many, and small
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from tqdm import tqdm

from pcmci.heads.config import ORDERS, order_name
from pcmci.kitchen import SHIFTS, Knobs, write_world

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
BEGIN, END = "<!-- begin: written by benchmarks/causal_evidence.py -->", "<!-- end -->"

SETTINGS = {"epochs": 30, "feedforward": 256}
"""256 is twice the width of the tiny CLIP, as the default 1,024 is of ViT-B/16's."""

SWEPT = ((), ("ich",), ("ici",), ("ivc",), ("ich", "ici", "ivc"))
MEANT_FOR = {"h": "ich", "i": "ici", "c": "ivc"}
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)

Place = tuple[str, float]
"""A knob and its level."""

Variant = tuple[tuple[str, ...], dict[str, Any]]
"""An order and the settings that are its own."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int = 600
    val: int = 120
    test: int = 480
    swept_test: int = 240
    seeds: int = 5
    resamples: int = 1000
    orders: tuple[tuple[str, ...], ...] = ORDERS
    levels: tuple[float, ...] = LEVELS
    epochs: int = SETTINGS["epochs"]


QUICK = Size(
    train=60, val=20, test=40, swept_test=20, seeds=2, resamples=100,
    orders=((), ("ich",), ("ich", "ici", "ivc")), levels=(0.0, 1.0), epochs=3,
)  # fmt: skip


# --- worlds and runs ----------------------------------------------------------------------------


def store_of(out: Path, knobs: Knobs, size: Size, workers: int | None = None) -> Path:
    """The features of a world, made if they are not there."""
    from pcmci.extract.config import ExtractConfig
    from pcmci.extract.datasets import load_dataset
    from pcmci.extract.pipeline import extract

    name = f"h{knobs.h:g}_i{knobs.i:g}_c{knobs.c:g}_test{size.test}"
    store = out / f"{name}.zarr"
    if not (out / f"{name}.done").exists():
        world = write_world(
            out / name, size.train, knobs=knobs, val=size.val, test=size.test, workers=workers
        )
        data = load_dataset("kitchen", world / "videos", world)
        # the encoders are tiny: in small batches the calls would cost more than the work
        extract(data, store, ExtractConfig(batch_frames=128))
        (out / f"{name}.done").touch()
    return store


def stores_of(out: Path, knobs: Mapping[Place, Knobs], size: Size) -> dict[Place, Path]:
    """The stores of several worlds, one a core."""
    different = list(dict.fromkeys(knobs.values()))
    with pool() as workers:
        made = [workers.submit(store_of, out, chosen, size, 1) for chosen in different]
        stores = {chosen: store.result() for chosen, store in zip(different, made, strict=True)}
    return {place: stores[chosen] for place, chosen in knobs.items()}


def pool() -> ProcessPoolExecutor:
    """A process a core."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def train(store: Path, order: tuple[str, ...], seed: int, settings: dict[str, Any]) -> Path:
    """One run, in a process of a pool; returns its folder."""
    from pcmci.cache.store import open_store
    from pcmci.heads.run import train_heads

    with open_store(store) as opened:
        out = store.parent / "runs"
        return train_heads(opened, order, seed=seed, out=out, progress=False, **settings).path


def train_all(store: Path, variants: Mapping[str, Variant], size: Size) -> dict[str, list]:
    """Name -> the predictions of its runs, one a seed; runs that are there are not made again."""
    from pcmci.heads.run import load_run

    with pool() as workers:
        runs: dict[Future[Path], str] = {}
        for name, (order, own) in variants.items():
            settings = {**SETTINGS, "epochs": size.epochs, **own}
            for seed in range(size.seeds):
                runs[workers.submit(train, store, order, seed, settings)] = name
        for run in tqdm(as_completed(runs), store.stem, len(runs), unit="run"):
            run.result()  # the first that failed is raised at once
    found: dict[str, list] = {name: [] for name in variants}
    for run, name in runs.items():
        found[name].append(load_run(run.result()).predictions)
    return found


# --- baselines ----------------------------------------------------------------------------------


def baselines(store_path: Path, like, size: Size) -> dict[str, list]:
    """Name -> predictions, one a seed; `like`: those of any run on the store."""
    from pcmci.cache.store import open_store

    with open_store(store_path) as store:
        rows = np.arange(len(store))
        vlm = store.read("vlm", rows)[:, 0].astype(np.float32)
        video = store.read("video", rows)[:, 0].astype(np.float32)
        text = {labels: store.text(labels) for labels in ("activity", "steps")}
        splits = np.array(store.splits)
        activity, steps = store.activity, store.steps
    unit = vlm / np.linalg.norm(vlm, axis=-1, keepdims=True)
    scores = {
        labels: np.einsum("vld,nd->vln", unit, t / np.linalg.norm(t, axis=-1, keepdims=True))
        for labels, t in text.items()
    }

    def predicted(of_activity: np.ndarray, of_steps: np.ndarray):
        scored = splits != "train"
        both = {"activity": of_activity, "steps": of_steps}
        labels = {
            name: replace(like.labels[name], logits=both[name][scored].astype(np.float32))
            for name in both
        }
        return replace(like, labels=labels)

    mean_video = video.mean(1)
    both_means = np.concatenate([mean_video, vlm.mean(1)], 1)
    return {
        "zero-shot CLIP": [predicted(scores["activity"].mean(1) / 0.05, scores["steps"].max(1))],
        "linear probe on the mean of `video`": [
            predicted(*(linear_probe(mean_video, target, splits) for target in (activity, steps)))
        ],
        "MLP on the means of both": [
            predicted(*(mlp(both_means, target, splits, seed) for target in (activity, steps)))
            for seed in range(size.seeds)
        ],
    }


def linear_probe(x: np.ndarray, target: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """[n, N] logits of a logistic regression whose strength `val` chose."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    def fitted(c: float):
        model = LogisticRegression(C=c, max_iter=2000)
        model = model if target.ndim == 1 else OneVsRestClassifier(model)
        return model.fit(x[train], target[train])

    x, train = standardised(x, splits), splits == "train"
    logits = [fitted(c).decision_function(x) for c in (0.001, 0.01, 0.1, 1.0)]
    return best_on_val(logits, target, splits)


def mlp(x: np.ndarray, target: np.ndarray, splits: np.ndarray, seed: int) -> np.ndarray:
    """[n, N] logits of one hidden layer of 512 whose weight decay `val` chose."""
    from sklearn.neural_network import MLPClassifier

    x, train = standardised(x, splits), splits == "train"
    logits = []
    for alpha in (0.01, 0.1, 1.0):
        model = MLPClassifier(512, alpha=alpha, max_iter=100, random_state=seed, tol=0)
        p = model.fit(x[train], target[train]).predict_proba(x).clip(1e-7, 1 - 1e-7)
        logits.append(np.log(p) if target.ndim == 1 else np.log(p / (1 - p)))
    return best_on_val(logits, target, splits)


def standardised(x: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """By the training videos' mean and standard deviation."""
    mean, std = x[splits == "train"].mean(0), x[splits == "train"].std(0)
    return (x - mean) / (std + 1e-6)


def best_on_val(logits: list[np.ndarray], target: np.ndarray, splits: np.ndarray) -> np.ndarray:
    from pcmci.heads.metrics import class_average_precision

    val = splits == "val"

    def quality(found: np.ndarray) -> float:
        if target.ndim == 1:
            return float((found[val].argmax(1) == target[val]).mean())
        return float(np.nanmean(class_average_precision(found[val], target[val])))

    return max(logits, key=quality)


def as_many_parameters(store_path: Path) -> int:
    """The decoder's feed-forward width at which a model without stages is as large as one with all
    three; of the two label sets, the larger."""
    from pcmci.cache.store import open_store
    from pcmci.heads.config import STAGES, ModelConfig
    from pcmci.heads.training import build_model

    with open_store(store_path) as store:
        text, width = store.text("steps"), store.spec.video.width

    def parameters(order: tuple[str, ...], feedforward: int) -> int:
        config = ModelConfig(order=order, feedforward=feedforward)
        return build_model(config, text, width, seed=0).trained_parameters()

    narrow = SETTINGS["feedforward"]
    missing = parameters(STAGES, narrow) - parameters((), narrow)
    each = parameters((), narrow + 1) - parameters((), narrow)
    return narrow + round(missing / each)


# --- tables -------------------------------------------------------------------------------------


def percent(interval, signed: bool = False) -> str:
    """`81.2 [79.0, 83.1]`, or with a sign and bold where 0 lies outside."""
    sign = "+" if signed else ""
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    text = f"{value:{sign}.1f} [{low:.1f}, {high:.1f}]"
    return f"**{text}**" if signed and interval.excludes_zero else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main_tables(predictions: Mapping[str, list], size: Size) -> tuple[str, dict]:
    """Markdown and numbers of the first part; `none` is the reference."""
    from pcmci.heads.bootstrap import SCORES, Bootstrap, interval

    splits = ["test", *SHIFTS]
    draws = {s: Bootstrap(predictions["none"][0], s, size.resamples) for s in splits}
    text, numbers = [], {}
    for score in SCORES:
        rows = []
        base = {s: draws[s].scores(predictions["none"], score) for s in splits}
        for name, runs in tqdm(predictions.items(), score, leave=False):
            found = {s: draws[s].scores(runs, score) for s in splits}
            cells = []
            for s in splits:
                own, against = interval(found[s]), interval(found[s] - base[s])
                numbers[f"{score}|{name}|{s}"] = {
                    "value": own.value,
                    "difference": against.value,
                    "low": against.low,
                    "high": against.high,
                    "seeds": [single(draws[s], run, score) for run in runs],
                }
                spread = np.std(numbers[f"{score}|{name}|{s}"]["seeds"])
                cell = f"{100 * own.value:.1f} ± {100 * spread:.1f}"
                cells.append(cell if name == "none" else f"{cell}<br>{percent(against, True)}")
            rows.append([name, *cells])
        text.append(f"### {score}\n\n{table(['', *splits], rows)}")
    return "\n\n".join(text), numbers


SAME_EYES = "none, the VLM's frames as tokens too"
"""Without stages, but it sees what ich sees: what a stage does beyond letting the VLM in."""


def same_eyes_table(predictions: Mapping[str, list], size: Size) -> str:
    """Differences of everything that looks at the VLM's frames to a decoder that does too."""
    from pcmci.heads.bootstrap import Bootstrap, interval

    splits = ["test", *SHIFTS]
    draws = {s: Bootstrap(predictions["none"][0], s, size.resamples) for s in splits}
    rows = []
    for score in ("Acc", "mAP"):
        base = {s: draws[s].scores(predictions[SAME_EYES], score) for s in splits}
        for name, runs in predictions.items():
            if "ich" in name:
                found = {s: interval(draws[s].scores(runs, score) - base[s]) for s in splits}
                rows.append([f"{score}: {name}", *(percent(found[s], True) for s in splits)])
    return table(["", *splits], rows)


def single(draws, run, score: str) -> float:
    """One run's score on the videos themselves."""
    from pcmci.heads.bootstrap import SCORES

    labels, resampled = SCORES[score]
    rows = run.splits == draws.split
    part, weights = run.labels[labels], np.ones((1, int(rows.sum())))
    return float(resampled(part, rows, run.present, weights)[0])


def density_table(predictions: Mapping[str, list]) -> str:
    """ODD and implausible pairs at three thresholds on the test, means over seeds."""
    from pcmci.heads.scoring import score

    taus = (0.3, 0.6, 0.9)
    rows = []
    truth: dict[float, float] = {}
    for name, runs in predictions.items():
        scores = [score(run, taus)["test"] for run in runs]
        cells = []
        for tau in taus:
            truth[tau] = scores[0][f"ODD@{tau:g} truth"]
            for key in (f"ODD@{tau:g}", f"ODD@{tau:g} implausible"):
                cells.append(f"{100 * np.mean([s[key] for s in scores]):.2f}")
        rows.append([name, *cells])
    rows.insert(0, ["ground truth", *(c for t in taus for c in (f"{100 * truth[t]:.2f}", "–"))])
    head = ["", *(f"{what} at {tau:g}" for tau in taus for what in ("ODD", "implausible"))]
    return table(head, rows)


def partner_table(predictions: Mapping[str, list]) -> str:
    """How likely the partner of an action is predicted where the action is: mean of Q over pairs
    that no video has together, so that the truth is 0."""
    from pcmci.heads.metrics import coprediction
    from pcmci.heads.scoring import sigmoid
    from pcmci.kitchen.causal import PARTNERS

    rows = []
    for name, runs in predictions.items():
        cells = []
        for split in ("test", "shift-i", "shift-all"):
            means = []
            for run in runs:
                part = run.labels["steps"]
                q = coprediction(sigmoid(part.logits[run.splits == split]))
                pairs = [(part.names.index(a), part.names.index(b)) for a, b in PARTNERS.items()]
                means.append(np.mean([q[i, j] for i, j in pairs]))
            cells.append(f"{100 * np.mean(means):.1f} ± {100 * np.std(means):.1f}")
        rows.append([name, *cells])
    return table(["", "test", "shift-i", "shift-all"], rows)


def sweep_tables(sweeps: Mapping[Place, Mapping[str, list]], size: Size) -> tuple[str, dict]:
    """Markdown and numbers of the second part: a row a knob's level."""
    from pcmci.heads.bootstrap import Bootstrap, interval

    text, numbers = [], {}
    orders = [order_name(order) for order in SWEPT]
    for knob, stage in MEANT_FOR.items():
        for score in ("Acc", "mAP"):
            rows = []
            for level in size.levels:
                predictions = sweeps[knob, level]
                shift = Bootstrap(predictions["none"][0], f"shift-{knob}", size.resamples)
                test = Bootstrap(predictions["none"][0], "test", size.resamples)
                base = shift.scores(predictions["none"], score)
                cost = interval(base - test.scores(predictions["none"], score))
                gains = {
                    order: interval(shift.scores(predictions[order], score) - base)
                    for order in orders
                    if order != "none"
                }
                for order, gain in gains.items():
                    numbers[f"{knob}|{level:g}|{score}|{order}"] = vars(gain)
                numbers[f"{knob}|{level:g}|{score}|none"] = {
                    "value": base[0], "cost of the shift": cost.value,
                }  # fmt: skip
                rows.append(
                    [f"{level:g}", f"{100 * base[0]:.1f}", percent(cost, True)]
                    + [percent(gain, True) for gain in gains.values()]
                )
            named = [f"{o} (meant)" if o == stage else o for o in orders if o != "none"]
            head = [f"{knob.upper()}", "none, shift", "none, shift − test", *named]
            text.append(
                f"### {score} on shift-{knob} as {knob.upper()} grows\n\n" + table(head, rows)
            )
    return "\n\n".join(text), numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="worlds, stores, runs, results")
    parser.add_argument("--quick", action="store_true", help="a small study, to see it run")
    parser.add_argument("--page", type=Path, help="whose tables are replaced (docs/evidence.md)")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    page = options.page or (None if options.quick else PAGE)
    options.out.mkdir(parents=True, exist_ok=True)

    knobs = Knobs()
    store = store_of(options.out, knobs, size)
    variants: dict[str, Variant] = {order_name(order): (order, {}) for order in size.orders}
    variants |= {
        "none, as many parameters as three stages": (
            (),
            {"feedforward": as_many_parameters(store)},
        ),
        SAME_EYES: ((), {"tokens": "both"}),
        "ich, softmax of S (no transport)": (("ich",), {"transport_refine": "similarity"}),
        "ich, uniform weights (no S)": (("ich",), {"transport_refine": "uniform"}),
    }
    predictions = train_all(store, variants, size)
    predictions |= baselines(store, predictions["none"][0], size)
    first, numbers = main_tables(predictions, size)

    small = replace(size, test=size.swept_test)
    settings_of = {
        (knob, level): replace(Knobs(0, 0, 0), **{knob: level})
        for knob in MEANT_FOR
        for level in size.levels
    }
    sweeps = {}
    for place, swept in stores_of(options.out, settings_of, small).items():
        orders: dict[str, Variant] = {order_name(order): (order, {}) for order in SWEPT}
        sweeps[place] = train_all(swept, orders, small)
    second, more = sweep_tables(sweeps, small)

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    command = " ".join(["python", *sys.argv])
    head = (
        f"`{command}` at commit {commit}: {size.train} training, {size.val} validation and "
        f"{size.test} test videos (each with its four twins), {size.seeds} seeds, "
        f"{size.epochs} epochs, {size.resamples} draws of sessions."
    )
    tables = (
        f"{head}\n\n## The world at H = {knobs.h:g}, I = {knobs.i:g}, C = {knobs.c:g}\n\n"
        "Mean over seeds ± their standard deviation; under it the difference to `none` with its "
        f"95 % interval, bold where it excludes 0.\n\n{first}\n\n"
        f"### ODD over tau, test\n\n{density_table(predictions)}"
        f"\n\n### Difference to `{SAME_EYES}`\n\n{same_eyes_table(predictions, size)}"
        "\n\n### Partners, which no video has together: mean Q in percent (truth: 0)\n\n"
        f"{partner_table(predictions)}"
        f"\n\n## One knob at a time\n\nThe other two at 0; {small.test} test videos. Columns of "
        f"orders: difference to `none` on the shifted split.\n\n{second}\n"
    )
    (options.out / "results.json").write_text(
        json.dumps({"main": numbers, "sweeps": more}, indent=1)
    )
    (options.out / "tables.md").write_text(tables)
    if page:
        before, _, rest = page.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}")
    print(tables)


if __name__ == "__main__":
    main()
