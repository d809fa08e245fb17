"""The whole way on the kitchen world: videos drawn, encoded, heads trained, a table and a page.

Nothing is downloaded: the world's tiny encoders come with the package. The only module besides the
command line that knows both phases.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from pcmci.cache.store import open_store
from pcmci.demo.page import demo_page
from pcmci.errors import PcmciError
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract
from pcmci.heads.ablation.ablate import Ablator
from pcmci.heads.scoring.bootstrap import Interval, differences
from pcmci.heads.training.run import Run
from pcmci.kitchen import SHIFTS, training_videos, twins_of, write_world

ENDS: tuple[tuple[str, ...], ...] = ((), ("ich", "ici", "ivc"))
"""No stage and all three: a run a core, and a page soon."""

LADDER: tuple[tuple[str, ...], ...] = ((), ("ich",), ("ich", "ici"), ("ich", "ici", "ivc"))
"""No stage, then one more each time: the paper's own ladder."""

VIDEOS = 400
"""Training videos that are drawn where nobody says how many."""


@dataclass(frozen=True)
class Demo:
    """What a demo leaves behind.

    runs: by order. against_none: score -> order -> split -> how much higher than without stages.
    page: an HTML file.
    """

    runs: dict[str, Run]
    against_none: dict[str, dict[str, dict[str, Interval]]]
    page: Path


def demo(
    out: Path,
    *,
    videos: int | None = None,
    epochs: int,
    full: bool = False,
    program: str = "pcmci",
    progress: bool = True,
) -> Demo:
    """Run both phases under `out`.

    What is there already is not done again, so a demo that was stopped goes on.
    videos: for training; None: as many as the world under `out` has, or `VIDEOS`. full: train the
    whole ladder of orders, not its two ends alone. program: how the page's commands call it.
    """
    if videos is None:
        videos = training_videos(out / "kitchen") or VIDEOS
    world = write_world(
        out / "kitchen",
        videos,
        val=max(1, videos // 10),
        test=videos // 5,
        twins=twins_of(out / "kitchen") or (*SHIFTS, "cause"),
        progress=progress,
    )
    dataset = load_dataset("kitchen", world / "videos", world)
    store_path = out / "features" / "kitchen.zarr"
    store_path.parent.mkdir(parents=True, exist_ok=True)
    extract(dataset, store_path, progress=progress)
    with open_store(store_path) as store:
        ablator = Ablator(
            store,
            LADDER if full else ENDS,
            seeds=1,
            out=out / "runs",
            progress=progress,
            values={"epochs": epochs},
        )
        runs = {}
        for outcome in ablator.train():
            if outcome.run is None:
                raise PcmciError(f"{outcome.trial.variant.name}: {outcome.reason}")
            runs[outcome.trial.variant.name] = outcome.run
        predictions = {order: [run.predictions] for order, run in runs.items()}
        against_none = differences(predictions, reference="none", progress=progress)
        commands = {
            "This page was made by": shlex.join(
                [
                    program, "demo", "--out", str(out), "--videos", str(videos),
                    "--epochs", str(epochs), *(["--full"] if full else []),
                ]
            ),
            "What one would type next:": next_command(out, epochs, program),
        }  # fmt: skip
        page = demo_page(dataset, store, runs, against_none, commands)
    return Demo(runs, against_none, page.write(out / "index.html"))


def next_command(out: Path, epochs: int, program: str = "pcmci") -> str:
    """What somebody who liked the demo would type."""
    return shlex.join(
        [
            program, "ablate",
            "--features", str(out / "features" / "kitchen.zarr"),
            "--orders", "all", "--seeds", "3", "--epochs", str(epochs),
            "--out", str(out / "runs"),
        ]
    )  # fmt: skip
