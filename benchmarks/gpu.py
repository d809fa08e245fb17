"""What a GPU makes of it: the encoders, the extraction, decoding on the GPU, head steps, a sweep.

    python benchmarks/gpu.py                          all parts
    python benchmarks/gpu.py --only encoders heads    some of the parts

encoders  frames a second of ViT-B/16 and TimeSformer-base with random weights, frames on the device
          already, at several batch sizes: as the product runs them (bf16 autocast, channels-last
          weights), without channels-last, and compiled. The share is of what a large bf16 matrix
          product reaches in the same run.
pipeline  frames a second of a whole extraction with both encoders, drawn films, and the share of
          the time in which the encoders wait for frames, by the number of decoding processes.
decoding  16 frames of each of the same films, one process: ours on the CPU, torchcodec on the CPU,
          torchcodec on the device (NVDEC).
heads     a training step of one run at Breakfast's scale: plain, with CUDA graphs, and compiled
          with CUDA graphs; and of five runs that are stacked, a run.
sweep     the wall time of an ablation of 80 runs on Breakfast's labels, `benchmarks/ablation.py`'s.

Not one of all.py's: it needs CUDA, and ends with exit code 2 where there is none. What fails says
why, and the rest is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

# As `pcmci extract` sets it: threads that spin would take the cores that decode.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ablation
import claims
import numpy as np
import torch
from clips import make_tree
from frames import FRAMES, Film, ours
from made_up import made_up_store
from steps import Case
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pcmci.cache.schema import LabelSet, VideoTable
from pcmci.device import choose_device, choose_precision
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.encoders import ENCODERS
from pcmci.extract.pipeline import extract
from pcmci.extract.video.frames import sample_indices
from pcmci.heads.config import STAGES, order_name
from pcmci.heads.head import Draws
from pcmci.heads.method.model import PCMCI
from pcmci.heads.training.features import Batch
from pcmci.heads.training.fit import build_model, fit_together

MODELS = {"vlm": "ViT-B-16-quickgelu", "video": "timesformer-base"}
SMALL_MODELS = {"vlm": "kitchen", "video": "timesformer-tiny"}
WEIGHTS = "random:0"
BATCHES = (16, 64, 256, 1024)
"""Frames a pass."""

PROCESSES = (1, 2, 4, 8, 16)
VIDEOS = 256
FILMS = (
    Film(".mp4", "libx264", 60, 15, (320, 240), 250, 350),
    Film(".mp4", "libx264", 60, 30, (640, 360), 30, 700),
    Film(".avi", "mpeg4", 60, 15, (320, 240), 12, 150),
)

WARM, STEPS = 5, 100
"""Training steps that are not timed, and that are."""

STACKED = 5
EPOCHS = (1, 10)
"""Of the sweep, twice: the line through both says what 100 epochs take."""


@dataclass
class Bench:
    """What every part gets. rows: what was measured so far."""

    device: torch.device
    quick: bool
    folder: Path
    annotations: Path
    rows: list[claims.Row] = field(default_factory=list)

    @property
    def precision(self) -> str:
        """The product's own: bf16 on CUDA."""
        return choose_precision("auto", self.device)

    def add(self, part: str, case: str, values: Sequence[float], unit: str, note: str = "") -> None:
        self.rows.append(claims.row(f"gpu {part}", case, values, unit=unit, note=note))
        print(claims.table(self.rows[-1:]).splitlines()[-1], flush=True)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Whatever fails inside says so in a line, and is left out."""
        try:
            yield
        except (Exception, SystemExit) as error:
            text = str(error)
            if isinstance(error, subprocess.CalledProcessError) and error.stderr:
                text = error.stderr.decode(errors="replace").strip().splitlines()[-1]
            first = (text.strip().splitlines() or [""])[0]
            print(f"{what}: left out: {type(error).__name__}: {first}"[:300], flush=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="/".join(PARTS))
    parser.add_argument(
        "--annotations", type=Path, default=Path("../shared/data/breakfast/segmentation_coarse"),
        help="of Breakfast, for the labels of the sweep",
    )  # fmt: skip
    # To try the script where there is no GPU: the numbers say nothing.
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("gpu.py measures a CUDA device, and this machine has none", file=sys.stderr)
        raise SystemExit(2)
    device = choose_device(options.device)
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name(device)}, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, options.quick, Path(folder), options.annotations)
        for name in options.only or PARTS:
            print(f"\n## {name}", flush=True)
            with bench.attempt(name):
                PARTS[name](bench)
    print()
    claims.publish(bench.rows, options.json)


# --- encoders -------------------------------------------------------------------------------------


def encoders(bench: Bench) -> None:
    peak = product_flops(bench.device, bench.precision, bench.quick)
    bench.add("encoders", f"{bench.precision} matrix product", peak / 1e12, "TFLOP/s")
    models = SMALL_MODELS if bench.quick else MODELS
    for kind, name in models.items():
        for variant, change in VARIANTS.items():
            with bench.attempt(f"{name}, {variant}"):
                # Anew each time: a variant changes the model.
                encoder = ENCODERS[kind](
                    name, WEIGHTS, device=str(bench.device), precision=bench.precision, frames=16
                )
                flop = frame_flop(encoder, bench.device)
                change(encoder)
                for frames in BATCHES[:1] if bench.quick else BATCHES:
                    with bench.attempt(f"{name}, {variant}, {frames} frames"):
                        speeds = frames_a_second(encoder, frames, bench)
                        share = float(np.median(speeds)) * flop / float(np.median(peak))
                        note = f"{share:.0%} of the matrix product, {flop / 1e9:.3g} GFLOP a frame"
                        case = f"{name}, {variant}, {frames} frames a pass"
                        bench.add("encoders", case, speeds, "frames/s", note)


def _without_channels_last(encoder: Any) -> None:
    encoder._model.to(memory_format=torch.contiguous_format)


def _compiled(encoder: Any) -> None:
    if hasattr(encoder._model, "visual"):  # of a CLIP the text tower is not asked here
        encoder._model.visual = torch.compile(encoder._model.visual)
    else:
        encoder._model = torch.compile(encoder._model)


VARIANTS: dict[str, Callable[[Any], None]] = {
    "as the product runs it": lambda encoder: None,
    "without channels-last weights": _without_channels_last,
    "compiled": _compiled,
}


def frames_a_second(encoder: Any, frames: int, bench: Bench) -> np.ndarray:
    """Of several series of passes over frames that lie on the device."""
    size = encoder.spec.preprocessing.size
    clips = max(1, frames // encoder.clip_frames)
    shape = (clips, encoder.clip_frames, size, size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=bench.device)
    passes = 2 if bench.quick else 10
    seconds = timed(lambda: encoder.encode(pixels), bench.device, passes)
    return clips * encoder.clip_frames / seconds


def frame_flop(encoder: Any, device: torch.device) -> float:
    """Floating point operations of the matrix products and convolutions of a frame."""
    size, frames = encoder.spec.preprocessing.size, encoder.clip_frames
    pixels = torch.zeros((1, frames, size, size, 3), dtype=torch.uint8, device=device)
    fused = torch.backends.mha.get_fastpath_enabled()
    # What is fused into one operation is none that the counter knows.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encoder.encode(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() / frames


def product_flops(device: torch.device, precision: str, quick: bool) -> np.ndarray:
    """Floating point operations a second of a large matrix product, several times."""
    side = 1024 if quick else 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / timed(lambda: one @ other, device, 20)


def timed(call: Callable[[], object], device: torch.device, calls: int) -> np.ndarray:
    """[5] seconds of a call, each the mean of so many in a row: a GPU is never left idle."""

    def series() -> float:
        wait(device)
        began = time.perf_counter()
        for _ in range(calls):
            call()
        wait(device)
        return (time.perf_counter() - began) / calls

    series()
    return np.array([series() for _ in range(5)])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- the whole extraction, and decoding ----------------------------------------------------------


def pipeline(bench: Bench) -> None:
    videos, count = bench.folder / "videos", 6 if bench.quick else VIDEOS
    make_tree(drawn_films(bench), videos, count)
    dataset = load_dataset("folder", videos, videos)
    models = SMALL_MODELS if bench.quick else MODELS
    for processes in PROCESSES[:2] if bench.quick else PROCESSES:
        if processes > (os.cpu_count() or 1):
            print(f"{processes} decoding processes: left out: there are {os.cpu_count()} cores")
            continue
        with bench.attempt(f"{processes} decoding processes"):
            config = ExtractConfig(
                vlm=models["vlm"], vlm_weights=WEIGHTS,
                video_encoder=models["video"], video_weights=WEIGHTS,
                device=str(bench.device), decode_threads=processes,
            )  # fmt: skip
            done = extract(
                dataset, bench.folder / "store.zarr", config, overwrite=True, progress=False
            )
            note = (
                f"waiting for frames {done.waiting / done.seconds:.0%} of {done.seconds:.1f} s, "
                f"{done.videos} videos, {len(done.failures)} failed"
            )
            case = f"extraction, {processes} decoding processes"
            bench.add("pipeline", case, [done.frames / done.seconds], "frames/s", note)


def drawn_films(bench: Bench) -> list[Path]:
    """The FILMS, drawn once."""
    folder = bench.folder / "films"
    if not folder.exists():
        folder.mkdir()
        for film in FILMS:
            if bench.quick:
                film = Film(film.suffix, film.codec, 3, film.rate, film.size, film.gop, film.kbit)
            film.write(str(folder))
    return sorted(folder.iterdir())


def decoding(bench: Bench) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "ours, CPU": ours,
        "torchcodec, CPU": partial(torchcodec_frames, device="cpu"),
    }
    if bench.device.type == "cuda":
        readers["torchcodec, NVDEC"] = partial(torchcodec_frames, device=str(bench.device))
    for path in drawn_films(bench):
        for name, read in readers.items():
            with bench.attempt(f"{path.name}, {name}"):
                seconds = timed(partial(read, path), bench.device, 1)
                case = f"{path.stem.replace('_', ' ')}, {name}"
                bench.add("decoding", case, FRAMES / seconds, "frames/s")


def torchcodec_frames(path: Path, device: str) -> Tensor:
    """[16, H, W, 3] uint8 on the device."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact", device=device)
    wanted = sample_indices(len(decoder), FRAMES)[0].tolist()
    return decoder.get_frames_at(wanted).data


# --- heads ----------------------------------------------------------------------------------------


def heads(bench: Bench) -> None:
    labels, n = ("activity", 10)
    for order in ((), STAGES):
        for name, change in WAYS.items():
            what = f"{labels}, {n} labels, {order_name(order)}, {name}"
            with bench.attempt(what):
                case = Case(order, labels, n, bench.device)
                change(case, bench.precision)
                seconds = step_seconds(case, 1, bench)
                bench.add("heads", f"{what}: a step", 1e3 * seconds, "ms")
        what = f"{labels}, {n} labels, {order_name(order)}, {STACKED} runs stacked"
        with bench.attempt(what):
            case = Case(order, labels, n, bench.device)
            seconds = step_seconds(case, STACKED, bench) / STACKED
            bench.add("heads", f"{what}: a step of one run", 1e3 * seconds, "ms")


class _Tensors(nn.Module):
    """A head whose arguments are tensors and nothing else, as a CUDA graph wants them."""

    def __init__(self, model: PCMCI, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, *given: Tensor) -> Tensor:
        """given: vlm, video, weights where the model wants them, dropout where there is any."""
        rest = list(given[2:])
        weights = rest.pop(0) if self.model.wants_weights else None
        draws = {"dropout": rest.pop(0)} if rest else {}
        bf16 = self.precision == "bf16"
        # A cache of cast weights would be kept from one replay to the next.
        with torch.autocast(given[0].device.type, torch.bfloat16, bf16, cache_enabled=False):
            return PCMCI.forward(self.model, given[0], given[1], weights, draws)


def _with_graphs(case: Case, precision: str) -> None:
    """Forward and backward pass each become one replay of a graph."""
    model, batch = case.model.train(), case.batch
    if not batch.vlm.is_cuda:
        raise RuntimeError("CUDA graphs need CUDA")
    generator = torch.Generator(batch.vlm.device).manual_seed(0)
    dropout = model.decoder.draw_dropout(len(batch.rows), generator)
    sample = [x for x in (batch.vlm, batch.video, batch.weights, dropout) if x is not None]
    graph = torch.cuda.make_graphed_callables(_Tensors(model, precision), tuple(sample))

    def forward(
        vlm: Tensor, video: Tensor, weights: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        given = (vlm, video, weights, (draws or {}).get("dropout"))
        return graph(*(x for x in given if x is not None))

    model.forward = forward  # type: ignore[method-assign]


def _reduced_overhead(case: Case, precision: str) -> None:
    compiled = torch.compile(case.model.forward, mode="reduce-overhead")
    case.model.forward = compiled  # type: ignore[method-assign]


WAYS: dict[str, Callable[[Case, str], None]] = {
    "plain": lambda case, precision: None,
    "CUDA graphs": _with_graphs,
    "torch.compile, reduce-overhead": _reduced_overhead,
}


class _Repeated:
    """Features that are always the same batch; seconds: of all steps but the first WARM."""

    kind = "made up"

    def __init__(self, batch: Batch) -> None:
        self.batch, self.seconds = batch, 0.0

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        for number in range(len(rows) // batch_size):
            if number == WARM:
                wait(self.batch.vlm.device)
                began = time.perf_counter()
            yield self.batch
            if number + 1 == len(rows) // batch_size:  # only here: a step is launched ahead
                wait(self.batch.vlm.device)
                self.seconds = time.perf_counter() - began


def step_seconds(case: Case, runs: int, bench: Bench) -> np.ndarray:
    """Seconds of a training step of so many runs together, three times."""
    steps = 4 if bench.quick else STEPS
    rows = np.tile(case.batch.rows, WARM + steps)
    text, width = case.model.text.cpu().numpy(), case.batch.video.shape[-1]
    others = [build_model(case.model.config, text, width, seed) for seed in range(1, runs)]
    found = []
    for _ in range(3):
        features = _Repeated(case.batch)
        fit_together(
            [case.model, *others], features, rows, case.targets, [case.config] * runs,
            precision=bench.precision,
        )  # fmt: skip
        found.append(features.seconds / steps)
    return np.array(found)


# --- sweep ----------------------------------------------------------------------------------------


def sweep(bench: Bench) -> None:
    if bench.quick:
        store, which = small_store(bench.folder / "small.h5"), ("none; ich", 1)
    else:
        store = ablation.breakfast_store(bench.folder / "breakfast.h5", bench.annotations)
        which = ("all", ablation.SEEDS)
    orders, seeds = which
    taken = {}
    for epochs in EPOCHS[:1] if bench.quick else EPOCHS:
        seconds = ablation.run(
            ["ablate", "--features", store, "--labels", "activity", "--orders", orders,
             "--seeds", seeds, "--epochs", epochs, "--resamples", 0, "--device", bench.device,
             "--out", bench.folder / f"runs{epochs}", "--results", bench.folder / "ablations"]
        )  # fmt: skip
        taken[epochs] = seconds
        case = f"orders {orders}, {seeds} seeds, {epochs} epochs"
        bench.add("sweep", case, [seconds], "s")
    if len(taken) == 2:
        few, more = taken
        slope = (taken[more] - taken[few]) / (more - few)
        note = "by a line through both"
        hundred = taken[few] + (100 - few) * slope
        bench.add("sweep", f"orders {orders}, {seeds} seeds, 100 epochs", [hundred], "s", note)


def small_store(path: Path) -> Path:
    """80 videos of four activities."""
    n = 80
    ids, names = tuple(f"video{i}" for i in range(n)), tuple(f"activity {i}" for i in range(4))
    splits = tuple("test" if i % 4 == 3 else "train" for i in range(n))
    table = VideoTable(
        ids, splits, ids, ids, np.arange(n, dtype=np.int32) % 4, np.zeros((n, 0), np.uint8)
    )
    return made_up_store(path, "made-up", LabelSet(names, names, "{}"), None, table)


PARTS: dict[str, Callable[[Bench], None]] = {
    "encoders": encoders,
    "pipeline": pipeline,
    "decoding": decoding,
    "heads": heads,
    "sweep": sweep,
}


if __name__ == "__main__":
    main()
