"""A sweep against the same runs one by one, and against a plain loop. All in one session.

    python benchmarks/ablation.py --annotations DIR            about half an hour on 2 cores
    python benchmarks/ablation.py --annotations DIR --full     every process of (a): an hour

DIR: Breakfast's coarse segmentation, whose labels the store has; its features are made up, of full
width (512 and 768, 16 frames). Labels `activity`, 16 orders, 5 seeds: 80 runs.

(a) the same runs one after another, each a process `pcmci train-heads`. Without --full seed 0 of
    every order is run, and its time taken five times.
(b) benchmarks/plain_loop.py: a DataLoader over the store, a Sinkhorn a video. One epoch of seed 0
    of every order is run, and its time taken as often as (80 runs x epochs) say: without its start.

The sweep's time has its page in it, and no bootstrap (`--resamples 0`): the others have neither.

Few epochs flatter the sweep, which starts once: the two-point fit says what a run of 100 costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from made_up import made_up_store
from torch.utils.flop_counter import FlopCounterMode

from pcmci.cache.schema import VideoTable
from pcmci.cache.store import open_store
from pcmci.extract.datasets import load_dataset
from pcmci.extract.table import video_table
from pcmci.heads.ablation.pool import threads
from pcmci.heads.ablation.probe import seconds_of_a_step
from pcmci.heads.catalogue import configure
from pcmci.heads.config import ORDERS, order_name
from pcmci.heads.head import loss_function
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import load_run

TRAINING_VIDEOS = 1357
SEEDS = 5
PCMCI = [sys.executable, "-m", "pcmci"]
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--annotations", type=Path, default=Path("data/breakfast/segmentation_coarse")
    )
    parser.add_argument("--epochs", type=int, nargs=2, default=(1, 3), metavar=("FEW", "MORE"))
    parser.add_argument("--full", action="store_true", help="all 80 processes of (a)")
    parser.add_argument("--out", type=Path, help="keep the store and the runs there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        store = breakfast_store(folder / "breakfast.h5", options.annotations)
        found = measure(folder, store, *options.epochs, full=options.full)
    print(table(found))
    if options.out:
        (options.out / "ablation.json").write_text(json.dumps(found, indent=1) + "\n")


def breakfast_store(path: Path, annotations: Path) -> Path:
    """1,357 training and 355 test videos. The published segmentation lacks some of the training
    videos: as many others are there twice, with other features."""
    if path.exists():
        return path
    # the data set's reader wants to find at least one of its videos, and opens none
    videos = path.parent / "no-videos"
    some = videos / "BreakfastII_15fps_qvga_sync" / "P16" / "cam01" / "P16_cereals.avi"
    some.parent.mkdir(parents=True, exist_ok=True)
    some.touch()
    dataset = load_dataset("breakfast", videos, annotations)
    known = video_table(dataset)
    train = np.flatnonzero(np.array(known.splits) == "train")
    extra = np.random.default_rng(0).choice(train, TRAINING_VIDEOS - len(train), replace=False)
    rows = np.concatenate([np.arange(len(known)), extra])

    def take(values: Sequence[str], mark: str = "") -> tuple[str, ...]:
        return tuple(values[r] + mark * (k >= len(known)) for k, r in enumerate(rows))

    doubled = VideoTable(
        ids=take(known.ids, "_again"),
        splits=take(known.splits),
        sessions=take(known.sessions),
        groups=take(known.groups),
        activity=known.activity[rows],
        steps=known.steps[rows],
    )
    return made_up_store(path, "breakfast", dataset.activity, dataset.steps, doubled, noise=4.0)


def measure(folder: Path, store: Path, few: int, more: int, *, full: bool) -> dict[str, Any]:
    peak = matrix_product_peak()
    found: dict[str, Any] = {"cores": os.cpu_count(), "GFLOP/s of a matrix product": peak}
    run(["ablate", "--dry-run", "--features", store, "--seeds", 1])  # warms the disk
    for epochs in (few, more):
        for kind in ("sweep", "alone"):  # what is there would not be trained
            shutil.rmtree(folder / f"{kind}{epochs}", ignore_errors=True)
        sweep, memory = watched(
            ["ablate", "--features", store, "--labels", "activity", "--orders", "all",
             "--seeds", SEEDS, "--epochs", epochs, "--resamples", 0,
             "--out", folder / f"sweep{epochs}", "--results", folder / "ablations"]
        )  # fmt: skip
        alone = {}
        for seed in range(SEEDS if full else 1):
            for order in ORDERS:
                alone[order_name(order), seed] = run(
                    ["train-heads", "--features", store, "--labels", "activity", "--order",
                     order_name(order), "--seed", seed, "--epochs", epochs,
                     "--out", folder / f"alone{epochs}"]
                )  # fmt: skip
        processes = sum(alone.values()) * (1 if full else SEEDS)
        found[f"{epochs} epochs"] = {
            "sweep, s": sweep, "processes, s": processes, "ratio": processes / sweep,
            "memory, GiB": memory,
        }  # fmt: skip
    found["equal"] = compare(folder / f"sweep{more}", folder / f"alone{more}")
    plain = json.loads(
        subprocess.run(
            [sys.executable, str(HERE / "plain_loop.py"), str(store), "--epochs", "1"],
            check=True, capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    found["plain loop, s of one run"] = plain
    for epochs in (few, more):
        of = found[f"{epochs} epochs"]
        of["plain loop, s"] = plain_seconds(plain, epochs)
        of["ratio to the plain loop"] = of["plain loop, s"] / of["sweep, s"]
    found["100 epochs, by a line through both"] = extrapolated(found, few, more)
    steps = more * -(-TRAINING_VIDEOS // 32)
    work = sum(step_gflop(store, order) for order in ORDERS) * SEEDS * steps
    found["share of the peak"] = work / found[f"{more} epochs"]["sweep, s"] / peak
    found["ms of a step of a run"] = step_times(store)
    return found


def plain_seconds(plain: dict[str, dict[str, float]], epochs: int) -> float:
    """Of all runs, each with one look at the test videos."""
    return SEEDS * sum(epochs * of["epoch"] + of["test"] for of in plain.values())


def extrapolated(found: dict[str, Any], few: int, more: int) -> dict[str, float]:
    """What 100 epochs would take: start + epochs x slope, of each."""
    at = {}
    for name in ("sweep, s", "processes, s"):
        low, high = (found[f"{epochs} epochs"][name] for epochs in (few, more))
        slope = (high - low) / (more - few)
        at[name] = low + (100 - few) * slope
    plain = plain_seconds(found["plain loop, s of one run"], 100)
    return {
        **at,
        "ratio": at["processes, s"] / at["sweep, s"],
        "ratio to the plain loop": plain / at["sweep, s"],
    }


def run(arguments: Sequence[object]) -> float:
    began = time.perf_counter()
    subprocess.run([*PCMCI, *map(str, arguments)], check=True, capture_output=True)
    return time.perf_counter() - began


def watched(arguments: Sequence[object]) -> tuple[float, float]:
    """Seconds, and the most memory (GiB) that the process and its children had together."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*PCMCI, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    most = [0]

    def watch() -> None:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                family = [parent, *parent.children(recursive=True)]
                most[0] = max(most[0], sum(p.memory_info().rss for p in family))
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.25)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        raise SystemExit(f"{arguments[0]} failed")
    seconds = time.perf_counter() - began
    watcher.join()
    return seconds, most[0] / 2**30


def matrix_product_peak() -> float:
    """GFLOP/s of fp32 2,048 x 2,048 products, one process a core, all at once."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        return sum(pool.map(_peak, range(cores)))


def _peak(_: int) -> float:
    torch.set_num_threads(1)
    a = torch.randn(2048, 2048)
    for _ in range(5):
        a @ a
    began = time.perf_counter()
    for _ in range(20):
        a @ a
    return 20 * 2 * 2048**3 / (time.perf_counter() - began) / 1e9


def recipe(order: tuple[str, ...], seed: int = 0) -> Recipe:
    return Recipe(*configure(order, ("activity",), {"seed": seed}), "fp32", "cpu")


def step_gflop(path: Path, order: tuple[str, ...]) -> float:
    """Of one training step, counted by torch."""
    with open_store(path) as store:
        text, width = store.text("activity"), store.spec.video.width
    made = recipe(order)
    model = build_model(made.model, text, width, 0)
    size = made.train.batch_size
    vlm, video = torch.randn(size, 16, text.shape[1]), torch.randn(size, 16, width)
    weights = torch.rand(size, len(text), 16) if model.wants_weights else None
    with FlopCounterMode(display=False) as counter:
        loss = loss_function(model(vlm, video, weights), torch.zeros(size, dtype=torch.int64))
        loss.backward()
    return counter.get_total_flops() / 1e9


def step_times(path: Path) -> dict[str, dict[str, float]]:
    """How threads and stacks change the time of a step of one run."""
    cpu = torch.device("cpu")
    found: dict[str, dict[str, float]] = {}
    with open_store(path) as store:
        for order in ((), ("ich", "ici"), ("ich", "ici", "ivc")):
            row = found.setdefault(order_name(order), {})
            for count in (1, os.cpu_count() or 1):
                for width in (1, 5):
                    recipes = [recipe(order, seed) for seed in range(width)]
                    with threads(count):
                        seconds = min(
                            seconds_of_a_step(store, recipes, "activity", cpu) for _ in range(3)
                        )
                    row[f"{count} threads, stack {width}"] = 1e3 * seconds / width
    return found


def compare(sweep: Path, alone: Path) -> dict[str, float]:
    """The largest difference of a logit, and of Acc, between the two ways to the same runs."""
    logits, accuracy, count = 0.0, 0.0, 0
    for folder in alone.glob("breakfast_*"):
        one, other = load_run(folder), load_run(sweep / folder.name)
        a, b = (r.predictions.labels["activity"].logits for r in (one, other))
        logits = max(logits, float(np.abs(a - b).max()))
        difference = one.metrics["test"]["Acc"] - other.metrics["test"]["Acc"]
        accuracy = max(accuracy, abs(difference))
        count += 1
    return {"runs": count, "largest difference of a logit": logits, "of Acc": accuracy}


def table(found: dict[str, Any]) -> str:
    lines = [
        "| | sweep | (a) processes | ratio | (b) plain loop | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in found.items():
        if name.endswith("epochs"):
            lines.append(
                f"| {name} | {of['sweep, s']:.0f} s | {of['processes, s']:.0f} s | "
                f"**{of['ratio']:.2f}** | {of['plain loop, s']:.0f} s | "
                f"**{of['ratio to the plain loop']:.2f}** |"
            )
    rest = {name: of for name, of in found.items() if not name.endswith(" epochs")}
    return "\n".join([*lines, "", json.dumps(rest, indent=1)])


if __name__ == "__main__":
    main()
