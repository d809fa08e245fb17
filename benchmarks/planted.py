"""A known confounder in features of Breakfast's labels: the table of docs/plant.md.

    python benchmarks/planted.py --annotations DIR --out DIR      some minutes on 2 cores

--annotations: Breakfast's coarse segmentation, whose videos, persons and activities the store has;
its features are made up (16 frames, width 64), so that no score here is one of Breakfast. What is
there already is not done again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from made_up import made_up_store

from pcmci.extract.datasets import load_dataset
from pcmci.extract.table import video_table

PLANT = ["--array", "vlm", "--share", "0.25", "--strength", "0.9"]
SWEEP = [
    "--labels", "activity", "--heads", "pcmci,mlp", "--orders", "none; ich",
    "--seeds", "2", "--epochs", "6", "--reference", "mlp", "--tau", "0.6",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    source, out = asked.out / "breakfast.zarr", asked.out / "planted.zarr"
    if not source.exists():
        # the data set's reader wants to find at least one of its videos, and opens none
        some = asked.out / "videos/BreakfastII_15fps_qvga_sync/P16/cam01/P16_cereals.avi"
        some.parent.mkdir(parents=True, exist_ok=True)
        some.touch()
        dataset = load_dataset("breakfast", asked.out / "videos", asked.annotations)
        made_up_store(
            source, "breakfast", dataset.activity, dataset.steps, video_table(dataset),
            width=64, video_width=64, noise=4.0,
        )  # fmt: skip
    run("plant", source, out, *PLANT)
    places = ["--out", asked.out / "runs", "--results", asked.out / "ablations"]
    run("ablate", "--features", out, *SWEEP, *places)


def run(*arguments: object) -> None:
    command = ["pcmci", *map(str, arguments)]
    print("$", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
