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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a run a core: they are many, and small
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from tqdm import tqdm

from pcmci.heads.config import ORDERS, order_name
from pcmci.kitchen import SHIFTS, Knobs, write_world

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
BEGIN, END = "<!-- begin: written by benchmarks/causal_evidence.py -->", "<!-- end -->"

SETTINGS = {"epochs": 40, "feedforward": 256}
"""256 is twice the width of the tiny CLIP, as the default 1,024 is of ViT-B/16's."""

SWEPT = ((), ("ich",), ("ici",), ("ivc",), ("ich", "ici", "ivc"))
MEANT_FOR = {"h": "ich", "i": "ici", "c": "ivc"}
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int = 600
    val: int = 120
    test: int = 480
    seeds: int = 5
    resamples: int = 1000
    orders: tuple[tuple[str, ...], ...] = ORDERS
    levels: tuple[float, ...] = LEVELS
    epochs: int = SETTINGS["epochs"]


QUICK = Size(
    train=60, val=20, test=40, seeds=2, resamples=100,
    orders=((), ("ich",), ("ich", "ici", "ivc")), levels=(0.0, 1.0), epochs=3,
)  # fmt: skip


# --- worlds and runs ----------------------------------------------------------------------------


def store_of(out: Path, knobs: Knobs, size: Size) -> Path:
    """The features of a world, made if they are not there."""
    from pcmci.extract.datasets import load_dataset
    from pcmci.extract.pipeline import extract

    name = f"h{knobs.h:g}_i{knobs.i:g}_c{knobs.c:g}"
    store = out / f"{name}.zarr"
    if not (out / f"{name}.done").exists():
        world = write_world(out / name, size.train, knobs=knobs, val=size.val, test=size.test)
        extract(load_dataset("kitchen", world / "videos", world), store)
        (out / f"{name}.done").touch()
    return store


def train(store: str, order: tuple[str, ...], seed: int, out: str, settings: dict) -> str:
    """One run, in a process of its own pool; returns its folder."""
    import torch

    torch.set_num_threads(1)
    from pcmci.cache.store import open_store
    from pcmci.heads.run import train_heads

    with open_store(store) as opened:
        run = train_heads(opened, order, seed=seed, out=out, progress=False, **settings)
    return str(run.path)


def all_runs(
    store: Path, orders: Iterable[tuple[str, ...]], size: Size, **settings: object
) -> dict[str, list[Path]]:
    """Order -> the folders of its runs, one a seed."""
    settings = {**SETTINGS, "epochs": size.epochs, **settings}
    jobs = [(order, seed) for order in orders for seed in range(size.seeds)]
    found: dict[str, list[Path]] = {order_name(order): [] for order, _ in jobs}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        runs = {
            pool.submit(train, str(store), order, seed, str(store.parent / "runs"), settings): order
            for order, seed in jobs
        }
        for run in tqdm(as_completed(runs), store.stem, len(jobs), unit="run"):
            found[order_name(runs[run])].append(Path(run.result()))
    return {order: sorted(folders) for order, folders in found.items()}


def predictions_of(runs: Mapping[str, Sequence[Path]]) -> dict[str, list]:
    """Order -> the predictions of its runs."""
    from pcmci.heads.run import load_run

    return {order: [load_run(folder).predictions for folder in f] for order, f in runs.items()}


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


def single(draws, run, score: str) -> float:
    """One run's score on the videos themselves."""
    from pcmci.heads.bootstrap import SCORES

    labels, resampled = SCORES[score]
    rows = run.splits == draws.split
    part, weights = run.labels[labels], np.ones((1, int(rows.sum())))
    return float(resampled(part, rows, run.present, weights)[0])


def truth_densities(like, taus: Sequence[float]) -> dict[float, dict[str, float]]:
    """tau -> split -> ODD of the ground truth."""
    from pcmci.heads.metrics import coprediction, off_diagonal_density

    steps = like.labels["steps"]
    return {
        tau: {
            split: off_diagonal_density(coprediction(steps.target[like.splits == split]), tau)
            for split in ("test", *SHIFTS)
        }
        for tau in taus
    }


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


def sweep_tables(
    sweeps: Mapping[tuple[str, float], Mapping[str, list]], size: Size
) -> tuple[str, dict]:
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
    predictions = predictions_of(all_runs(store, size.orders, size))
    wide = as_many_parameters(store)
    wider = predictions_of(all_runs(store, [()], size, feedforward=wide))["none"]
    predictions |= {f"none, feed-forward {wide}": wider}
    predictions |= baselines(store, predictions["none"][0], size)
    first, numbers = main_tables(predictions, size)

    sweeps = {}
    for knob in MEANT_FOR:
        for level in size.levels:
            swept = store_of(options.out, replace(Knobs(0, 0, 0), **{knob: level}), size)
            sweeps[knob, level] = predictions_of(all_runs(swept, SWEPT, size))
    second, more = sweep_tables(sweeps, size)

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    command = " ".join(["python", *sys.argv])
    head = (
        f"`{command}` at commit {commit}: {size.train} training, {size.val} validation and "
        f"{size.test} test videos (each with its four twins), {size.seeds} seeds, "
        f"{size.epochs} epochs, {size.resamples} draws of sessions."
    )
    truths = truth_densities(predictions["none"][0], (0.6,))[0.6]["test"]
    tables = (
        f"{head}\n\n## The world at H = {knobs.h:g}, I = {knobs.i:g}, C = {knobs.c:g}\n\n"
        "Mean over seeds ± their standard deviation; under it the difference to `none` with its "
        "95 % interval, bold where it excludes 0. ODD of the ground truth on these videos: "
        f"{100 * truths:.1f}.\n\n{first}\n\n### ODD over tau, test\n\n{density_table(predictions)}"
        "\n\n## One knob at a time\n\nThe other two at 0. Columns of orders: difference to `none` "
        f"on the shifted split.\n\n{second}\n"
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
