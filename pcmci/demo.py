"""The whole way on the kitchen world: videos drawn, encoded, heads trained, a table. No download.

The only module besides the command line that knows both phases.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pcmci.cache.store import open_store
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract
from pcmci.heads.config import order_name
from pcmci.heads.run import Run, train_heads
from pcmci.kitchen import write_world

ENCODERS = ExtractConfig(
    vlm="kitchen", vlm_weights="random:0", video_encoder="kitchen", video_weights="random:0"
)
"""Tiny encoders of the world's size. Their weights are random: the demo shows the way, and its
scores say nothing of the method."""

ORDERS: tuple[tuple[str, ...], ...] = ((), ("ich",), ("ich", "ici"), ("ich", "ici", "ivc"))
"""No stage, then one more each time: the paper's own ladder."""


def demo(out: Path, *, videos: int, epochs: int) -> dict[str, Run]:
    """Run both phases under `out` and return the runs by order.

    What is there already is not done again, so a demo that was stopped goes on.
    """
    world = write_world(out / "kitchen", videos=videos, val=max(1, videos // 10), test=videos // 3)
    dataset = load_dataset("kitchen", world / "videos", world)
    store_path = out / "features" / "kitchen.zarr"
    store_path.parent.mkdir(parents=True, exist_ok=True)
    extract(dataset, store_path, ENCODERS)
    with open_store(store_path) as store:
        return {
            order_name(order): train_heads(store, order, out=out / "runs", epochs=epochs)
            for order in ORDERS
        }


def next_command(out: Path, program: str = "pcmci") -> str:
    """What somebody who liked the demo would type."""
    return shlex.join(
        [
            program, "train-heads",
            "--features", str(out / "features" / "kitchen.zarr"),
            "--order", "ivc,ich,ici",
            "--out", str(out / "runs"),
        ]
    )  # fmt: skip
