"""`pcmci extract` with one CLIP against a script that takes every frame: benchmarks/every_frame.py.

    python benchmarks/peers.py --videos ../shared/data/videos    about three minutes on 2 cores

The same clips and the same model (ViT-B/32 with random weights), both from the start of their
process to its end. The second encoder of `pcmci extract`, which it cannot do without, is a
TimeSformer of two thin layers. The baseline decodes every frame and encodes every frame, as such
scripts do; a second row lets it encode the same number of frames as we do, so that the difference
is decoding, start and bookkeeping alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from claims import paired, parser, publish, ratio_row
from clips import REAL, make_tree, readable_clips
from extraction import extract

HERE = Path(__file__).parent
MODEL = "ViT-B-32-quickgelu"
FRAMES = 16


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--videos", type=Path, default=REAL, help="a folder of real clips")
    options.add_argument("--count", type=int, default=7, help="videos")
    options.add_argument("--repeats", type=int, default=2)
    args = options.parse_args()
    count, repeats = (2, 1) if args.quick else (args.count, args.repeats)
    models = {
        "vlm": MODEL, "vlm_weights": "random:0",
        "video_encoder": "timesformer-tiny", "video_weights": "random:0",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tree(readable_clips(args.videos), folder / "videos", count)
        ours = partial(extract, folder, models)
        rows = [
            ratio_row(
                "peers", f"pcmci extract / a script that {what}",
                paired(ours, partial(baseline, folder, frames), repeats, warm=False),
                aim=aim, note=f"{count} clips, ViT-B/32, whole processes",
            )
            for what, frames, aim in (
                ("decodes and encodes every frame", 0, "at most 0.33"),
                (f"decodes every frame and encodes {FRAMES}", FRAMES, ""),
            )
        ]  # fmt: skip
    publish(rows, args.json)


def baseline(folder: Path, frames: int) -> None:
    """The script in a process of its own; its threads spin, as they do where nobody says more."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        script = [sys.executable, str(HERE / "every_frame.py"), str(folder / "videos")]
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        subprocess.run(
            [*script, f"{out}/npy", "--model", MODEL, "--frames", str(frames)],
            check=True, stdout=subprocess.DEVNULL, env=environment,
        )  # fmt: skip


if __name__ == "__main__":
    main()
