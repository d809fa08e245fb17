"""What every encoder costs: numbers, GFLOP a video, time a video and memory, in one table.

    python benchmarks/encoder_costs.py                     all of `pcmci encoders`: half an hour
    python benchmarks/encoder_costs.py --only x3d-m vit-base
    python benchmarks/encoder_costs.py --quick             the small ones

Weights are random (`random:0`) in the sizes of the published ones, which are not fetched: time and
memory do not depend on them, features would. A video is 16 frames, or as many as make whole clips;
its frames are noise, and decoded already. Each encoder has a process of its own, whose peak memory
is its own; one that cannot be loaded or run stands in the table with its reason.

Time is CPU seconds on a CPU (with --threads, 1 by default), so that a busy machine changes it
little, and wall seconds on CUDA. The share is of the GFLOP/s of a float32 matrix product (bf16 on
CUDA), timed in the same process right before and after.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FRAMES, SIDE = 16, 2048
QUICK = ("x3d-m", "vit-tiny", "videomamba-ti")
SECONDS = 1800
"""That one encoder may take."""


@dataclass
class Cost:
    """gflop, seconds: a video of `frames` frames. share: of a matrix product's GFLOP/s. memory:
    bytes at the peak, of the process or of the GPU. trouble: why there are no numbers."""

    kind: str
    name: str
    parameters: int
    gflop: float
    frames: int = FRAMES
    seconds: float | None = None
    share: float | None = None
    memory: int | None = None
    trouble: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="as pcmci encoders has them")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} alone, once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args)))
        return
    from pcmci.extract.encoders.cards import CARDS

    cards = {(card.kind, card.name): card for card in reversed(CARDS)}  # the first of a name
    only = args.only or (QUICK if args.quick else None)
    found = []
    for (kind, name), card in reversed(cards.items()):
        if only and name not in only:
            continue
        frames = math.lcm(FRAMES, card.clip_frames)
        row = Cost(kind, name, card.parameters, card.gflops * frames, frames)
        for key, value in in_a_process(row, args).items():
            setattr(row, key, value)
        found.append(row)
        print(f"{name}: {row.trouble or f'{row.seconds:.2f} s'}", file=sys.stderr, flush=True)
    if not found:
        raise SystemExit(f"no encoder is called {' or '.join(only or ())}: see pcmci encoders")
    print(table(found, args))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in found], indent=1))


def in_a_process(row: Cost, args: argparse.Namespace) -> dict[str, Any]:
    """What `measure` gives, or the last line of why it does not."""
    command = [sys.executable, __file__, "--one", row.kind, row.name, "--device", args.device]
    command += ["--threads", str(args.threads)]
    command += ["--repeats", str(1 if args.quick else args.repeats)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"trouble": f"took more than {SECONDS} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"trouble": said[-1] if said else f"exit code {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(kind: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The numbers of one encoder, in this process."""
    import numpy as np
    import torch

    from pcmci.extract.encoders import ENCODERS
    from pcmci.extract.encoders.cards import card_of

    torch.set_num_threads(args.threads)
    card = card_of(kind, name)
    assert card is not None
    frames = math.lcm(FRAMES, card.clip_frames)
    cuda = args.device.startswith("cuda")
    encoder = ENCODERS[kind](name, "random:0", device=args.device, frames=frames)
    size = encoder.spec.preprocessing.size
    shape = (frames // encoder.clip_frames, encoder.clip_frames, size, size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8).to(args.device)
    square = torch.randn(SIDE, SIDE, device=args.device)
    square = square.bfloat16() if cuda else square

    def timed(call: Any) -> float:
        if cuda:
            torch.cuda.synchronize()
        clock = time.perf_counter if cuda else time.process_time
        began = clock()
        call()
        if cuda:
            torch.cuda.synchronize()
        return clock() - began

    def video() -> None:
        for clip in clips.split(len(clips) if cuda else 1):
            encoder.encode(clip)

    peaks, taken = [], []
    encoder.encode(clips[:1])
    for _ in range(args.repeats):
        peaks.append(2 * SIDE**3 / timed(lambda: square @ square))
        taken.append(timed(video))
        peaks.append(2 * SIDE**3 / timed(lambda: square @ square))
    seconds = float(np.median(taken))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "share": card.gflops * 1e9 * frames / seconds / float(np.median(peaks)),
        "memory": torch.cuda.max_memory_allocated() if cuda else memory,
        "parameters": encoder.spec.parameters,
    }


def table(rows: list[Cost], args: argparse.Namespace) -> str:
    """Markdown."""
    how = "wall" if args.device.startswith("cuda") else f"CPU, {args.threads} thread(s)"
    lines = [
        f"random weights in the published sizes; {args.device}",
        "",
        f"| | encoder | numbers (M) | frames | GFLOP a video | s a video ({how}) | "
        "share of a matrix product | memory (MiB) | |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        measured = (
            "– | – | –"
            if row.seconds is None or row.share is None or row.memory is None
            else f"{row.seconds:.2f} | {row.share:.2f} | {row.memory / 2**20:,.0f}"
        )
        lines.append(
            f"| {row.kind} | {row.name} | {row.parameters / 1e6:.1f} | {row.frames} | "
            f"{row.gflop:,.0f} | {measured} | {row.trouble} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
