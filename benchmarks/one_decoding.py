"""Several video encoders from one decoding of each video, against an extraction for each.

    python benchmarks/one_decoding.py            full size, films of five minutes: about an hour
    python benchmarks/one_decoding.py --quick    tiny encoders, films of 20 seconds: some minutes

`pcmci extract --video-encoder A,B,C,D` against four `pcmci extract --video-encoder A` and so on,
each a process of its own as a user starts it, in turns; all weights are random, for their values
do not matter for the time. What one decoding saves is three decodings, three passes of the VLM and
three starts of a process. The sizes say how much that is: where an encoder takes seconds a video
it is little, and with tiny encoders it is most of it, so that --quick shows the other end.

CPU seconds, of the processes and of those that decode for them: a busy machine changes them little.
The share is of the four extractions' time; "but the starts" leaves out what one extraction of
nothing new takes, once here and four times there.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import claims
import numpy as np
from frames import Film

FILM = Film(".mp4", "libx264", 300, 15, (320, 240), 250, 350)
QUICK_FILM = Film(".mp4", "libx264", 20, 15, (320, 240), 250, 350)
VLM, QUICK_VLM = "ViT-B-16-quickgelu", "kitchen"
ENCODERS = ("timesformer-base", "x3d-m", "vit-base", "videomamba-m")
TINY = {
    "x3d": {
        "model_type": "x3d", "short_side": 36, "input_crop_size": 32, "input_clip_length": 8,
        "depth_factor": 0.5, "stem_dim_in": 4, "head_dim_out": 16,
    },
    "videomamba": {
        "model_type": "videomamba", "image_size": 32, "patch_size": 16, "num_frames": 8,
        "hidden_size": 32, "num_hidden_layers": 2,
    },
}  # fmt: skip


def main() -> None:
    options = claims.parser(__doc__)
    options.add_argument("--count", type=int, default=4, help="videos")
    options.add_argument("--repeats", type=int, default=3)
    args = options.parse_args()
    count = min(args.count, 2) if args.quick else args.count
    repeats = 1 if args.quick else args.repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = QUICK_FILM if args.quick else FILM
        make_films(film, folder, count)
        names = tiny_encoders(folder) if args.quick else ENCODERS
        vlm = QUICK_VLM if args.quick else VLM
        together, apart, starts = [], [], []
        for _ in range(repeats):
            together.append(extract(folder, vlm, [",".join(names)], "together"))
            apart.append(extract(folder, vlm, names, "apart"))
            # nothing is left to do: what it takes is the start
            starts.append(extract(folder, vlm, names[:1], "apart", overwrite=False))
    once, four, start = (np.array(found) for found in (together, apart, starts))
    case = f"{len(names)} encoders, {count} films ({film.title}): one decoding / one each"
    note = f"{', '.join(Path(one).stem for one in names)} beside {vlm}; CPU time, random weights"
    bare = np.stack([once - start, four - len(names) * start], axis=1)
    rows = [
        claims.ratio_row("one decoding", case, np.stack([once, four], axis=1), note=note),
        claims.ratio_row("one decoding", f"{case}, but the starts", bare),
    ]
    claims.publish(rows, args.json)


def make_films(film: Film, folder: Path, count: int) -> None:
    """A folder of `count` copies in two classes."""
    path = film.write(str(folder))
    for k in range(count):
        kind = folder / "films" / ("tea", "milk")[k % 2]
        kind.mkdir(parents=True, exist_ok=True)
        (kind / f"{k}{film.suffix}").write_bytes(path.read_bytes())


def tiny_encoders(folder: Path) -> list[str]:
    """One of each family."""
    for name, config in TINY.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    return [
        "timesformer-tiny",
        str(folder / "x3d.json"),
        "timm:test_vit",
        str(folder / "videomamba.json"),
    ]


def extract(
    folder: Path, vlm: str, encoders: Sequence[str], out: str, *, overwrite: bool = True
) -> float:
    """CPU seconds of one extraction a member, each into a store of its own."""
    weights = "own" if vlm == QUICK_VLM else "random:0"
    before = cpu_seconds()
    for k, names in enumerate(encoders):
        command = [
            sys.executable, "-m", "pcmci", "extract", "--dataset", "folder",
            "--videos", str(folder / "films"), "--out", str(folder / f"{out}{k}.zarr"),
            "--vlm", vlm, "--vlm-weights", weights, "--video-encoder", names,
            "--video-weights", "random:0", "--device", "cpu", "--json",
        ]  # fmt: skip
        command += ["--overwrite"] * overwrite
        done = subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            # threads that spin would count as work
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    return cpu_seconds() - before


def cpu_seconds() -> float:
    """Of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
