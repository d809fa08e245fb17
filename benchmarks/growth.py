"""Whether a hundred times as many videos take a hundred times as long, and no more memory.

    python benchmarks/growth.py           1,000, 10,000 and 100,000 videos: about seven minutes
    python benchmarks/growth.py --quick   200, 1,000 and 4,000

Everything but the encoders is the product's own: `extract` makes the store, decodes in its process,
batches, journals and commits; `Store.read` reads it; `frozen_weights`, `open_features` and `fit`
train on it with a bound, as `pcmci train --memory 200M` does (1,000 videos fit in it and are held
in memory, the others are streamed).

extraction  The encoders are stubs that look vectors up, of the real widths 512 and 768. The films
            have one frame of 160x128, which stands in all 16 places: nothing that costs the same
            for every video shall hide what grows with their number, and a frame that is not let go
            shall be noticed. The time is that of the whole call, from the table of videos to the
            last commit, without the wait for the decoder's process, which is paid once.
load        Open the store and read all of it, 960 videos at a time, page cache warm.
transport   The plans, solved once before the first epoch and kept beside the store.
epoch       ICH and the decoder, 10 activities, batches of 32. (More stages take more time for the
            same reading, and growth would show less.)

Every size runs in a process of its own, after a warm-up on a few videos, so that neither imports
nor first calls count. The smallest size runs three times, before, between and after the others; a
ratio is the median over these.

Memory of an extraction is VmHWM, the peak of what is resident, of the process and of its decoder
(not `ru_maxrss`, which a child takes over from its parent). Memory of an epoch is the peak of
RssAnon, looked at every 50 ms, above that of the same training on the warm-up's videos: what grows
with their number, without weights, gradients and the optimiser, and without the pages of the plans'
file, which is mapped and of which the system may take back any page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import av
import claims
import numpy as np
import psutil
import torch

from pcmci.cache.disk import delete
from pcmci.cache.schema import EncoderSpec, LabelSet, Preprocessing
from pcmci.cache.store import open_store
from pcmci.device import choose_device, keep_freed_memory
from pcmci.extract import here, pipeline
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset, Video
from pcmci.extract.encoders.preprocess import resize_and_crop
from pcmci.heads.config import ModelConfig, TrainConfig, parse_memory
from pcmci.heads.method.transport import alignment
from pcmci.heads.training.features import open_features
from pcmci.heads.training.fit import build_model, fit, predict_logits
from pcmci.heads.training.frozen import frozen_weights

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (200, 1_000, 4_000)
MEMORY = "200M"
SLICE = 960
"""Videos a read, at every size: whole chunks, 39 MB. In larger reads every page is new, which costs
as much as the reading, and the smallest size would have none of it."""

WARM_UP = 128
"""Videos."""

FILMS = 16


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="where 5 GB fit (default: temporary files)")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)  # what a child is to do
    options = parser.parse_args()
    if options.part:
        part, folder, videos = options.part
        found = {"extract": extract, "load": load, "epoch": epoch}[part](Path(folder), int(videos))
        print(json.dumps(found))
        return
    sizes = QUICK_SIZES if options.quick else SIZES
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        draw_films(Path(folder))
        results = {
            part: measure(part, Path(folder), sizes) for part in ("extract", "load", "epoch")
        }
    rows = [
        *rows_of("extraction", "seconds", results["extract"]),
        memory_row("extraction", results["extract"]),
        *rows_of("load", "seconds", results["load"]),
        *rows_of("transport", "transport", results["epoch"]),
        *rows_of(f"epoch with --memory {MEMORY}", "seconds", results["epoch"]),
        *bound_rows(results["epoch"]),
    ]
    claims.publish(rows, options.json)


Results = dict[int, list[dict[str, Any]]]
"""By number of videos, what each run of that size reported."""


def measure(part: str, folder: Path, sizes: tuple[int, ...]) -> Results:
    """A part at every size, each in a fresh process."""
    small, middle, large = sizes
    results: Results = {size: [] for size in sizes}
    for videos in (small, middle, small, large, small):
        command = [sys.executable, __file__, "--part", part, str(folder), str(videos)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{part} of {videos} videos ends with {done.returncode}")
        results[videos].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def rows_of(what: str, key: str, results: Results) -> list[claims.Row]:
    """Seconds a video at the largest and the middle size / at the smallest."""
    small, *others = results
    a_video = {n: np.concatenate([np.ravel(one[key]) for one in results[n]]) / n for n in results}
    times = ", ".join(f"{1e3 * np.median(a_video[n]):.3g} ms at {n:,}" for n in results)
    return [
        claims.row(
            "growth", f"{what}: time a video, {n:,} / {small:,} videos",
            np.median(a_video[n]) / a_video[small], aim="at most 1.10", note=times,
        )
        for n in reversed(others)
    ]  # fmt: skip


def memory_row(what: str, results: Results) -> claims.Row:
    """Peak memory at the largest size / at the smallest."""
    small, *_, large = results
    peaks = {n: [one["peak"] for one in results[n]] for n in results}
    shown = ", ".join(f"{mib(np.median(peaks[n]))} at {n:,}" for n in results)
    (last,) = results[large]
    more = (np.median(peaks[large]) - np.median(peaks[small])) / (large - small)
    note = (
        f"{shown}, {mib(last['decoder'])} of it the decoder's process: {more:.0f} bytes a video; "
        f"the last tenth of the videos takes {last['last tenth / first']:.2f} of the first's time"
    )
    values = np.median(peaks[large]) / np.array(peaks[small])
    case = f"{what}: peak memory, {large:,} / {small:,} videos"
    return claims.row("growth", case, values, aim="at most 1.10", note=note)


def bound_rows(results: Results) -> list[claims.Row]:
    """Peak memory of an epoch above that on a few videos, over the bound."""
    rows = []
    for n in reversed(list(results)[1:]):
        (one,) = results[n]
        note = (
            f"{one['kind']}, {mib(one['peak'])}; the process itself {mib(one['own'])}; solving the "
            f"plans before took {mib(one['peak of transport'])} more than that; not counted: the "
            f"plans' file, {mib(one['plans'])}, mapped"
        )
        case = f"epoch of {n:,} videos: memory beyond that of {WARM_UP} / {MEMORY}"
        value = one["peak"] / parse_memory(MEMORY)
        rows.append(claims.row("growth", case, [value], aim="at most 1.00", note=note))
    return rows


def mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


# --- in a process of its own ----------------------------------------------------------------------


def extract(folder: Path, videos: int) -> dict[str, Any]:
    """Makes `<videos>.zarr`; seconds of the call, bytes of memory at the peak."""
    clock = Clock(videos)
    device = choose_device("cpu")
    encoders = pipeline.Encoders(
        Stub(512, 1, clock), Stub(768, 8), device=device, precision="fp32", batch_frames=16
    )
    keep_freed_memory()  # as `Encoders.load`, in whose place the stubs come
    config = ExtractConfig(vlm="stub", video_encoder="stub")
    with mock.patch.object(pipeline.Encoders, "load", return_value=encoders):
        pipeline.extract(dataset(folder, WARM_UP), folder / "warm.zarr", config, progress=False)
        delete(folder / "warm.zarr")
        films, out = dataset(folder, videos), folder / f"{videos}.zarr"
        delete(out)
        with (
            watched(memory_of_children, 0.2) as children,
            mock.patch.object(here, "Decoders", clock.started),
        ):
            began = time.perf_counter()
            summary = pipeline.extract(films, out, config, progress=False)
            seconds = time.perf_counter() - began
    if summary.videos != videos:
        raise SystemExit(f"only {summary.videos} of {videos} videos were encoded")
    decoder = max(children.values())
    return {
        "seconds": seconds - clock.start_up,
        "start-up": clock.start_up,
        "last tenth / first": clock.last_over_first,
        "peak": own_memory()["VmHWM"] + decoder,
        "decoder": decoder,
    }


def load(folder: Path, videos: int) -> dict[str, Any]:
    """Seconds of opening and reading `<videos>.zarr`."""
    path = folder / f"{videos}.zarr"

    def read() -> None:
        with open_store(path) as store:
            for name in ("vlm", "video"):
                for start in range(0, len(store), SLICE):
                    store.read(name, slice(start, start + SLICE))

    read()
    repeats = 7 if videos > 5_000 else 15
    return {"seconds": [claims.seconds(read) for _ in range(repeats)]}


def epoch(folder: Path, videos: int) -> dict[str, Any]:
    """Seconds of the plans and of each epoch on `<videos>.zarr`, and bytes of memory at the peak
    above that of the same training on a few videos."""
    device = choose_device("cpu")  # before anything is computed, as a run begins
    model_config = ModelConfig(("ich",))
    epochs = max(1, min(4, 20_000 // videos))
    ends: list[float] = []
    with open_store(folder / f"{videos}.zarr") as store:
        targets = torch.from_numpy(store.activity).long()
        text, width = store.text("activity"), store.spec.video.width

        def train(rows: np.ndarray, weights: np.ndarray, epochs: int) -> str:
            features = open_features(store, rows, weights, device, parse_memory(MEMORY))
            model = build_model(model_config, text, width, seed=0)
            config = TrainConfig(("activity",), epochs=epochs)
            ends[:] = [time.perf_counter()]
            fit(
                model, features, rows, targets, config,
                on_epoch=lambda *_: ends.append(time.perf_counter()),
            )  # fmt: skip
            predict_logits(model, features, rows[::10], config.batch_size)
            return features.kind

        few = store.read("vlm", slice(WARM_UP))
        log_s = torch.from_numpy(few).float().flatten(0, 1)
        some = alignment(torch.from_numpy(text)[None], log_s, model_config.transport, exact=True)
        few_weights = some[0].float().unsqueeze(1).numpy()
        with watched(own_memory) as peaks:
            train(np.arange(WARM_UP), few_weights, 2)
        own = peaks["RssAnon"]
        delete(Path(f"{store.path}.plans"))
        with watched(own_memory) as peaks:
            began = time.perf_counter()
            frozen = frozen_weights(
                store, "activity", model_config.transport, device, progress=False
            )
            transport = time.perf_counter() - began
        at_transport = peaks["RssAnon"]
        with watched(own_memory) as peaks:
            kind = train(np.arange(videos), frozen.weights, epochs)
        return {
            "transport": transport,
            "seconds": np.diff(ends).tolist(),
            "kind": kind,
            "own": own,
            "peak of transport": at_transport - own,
            "peak": peaks["RssAnon"] - own,
            "plans": frozen.weights.nbytes,
        }


class Clock:
    """When things happened while `videos` were extracted.

    start_up: seconds between asking for the decoder's process and the first frames from it.
    calls: when each tenth of the videos was begun. last: when the last video was.
    """

    def __init__(self, videos: int) -> None:
        self.videos = videos
        self.calls: list[float] = []
        self.count = 0

    def started(self, *arguments: Any) -> Any:
        """In the place of `here.Decoders`."""
        self.count, self.calls, self.asked = 0, [], time.perf_counter()
        return DECODERS(*arguments)

    def tick(self) -> None:
        """A video reached the encoder."""
        self.last = time.perf_counter()
        if self.count % (self.videos // 10) == 0:
            self.calls.append(self.last)
        self.count += 1

    @property
    def start_up(self) -> float:
        return self.calls[0] - self.asked

    @property
    def last_over_first(self) -> float:
        tenths = np.diff([*self.calls, self.last])
        return float(tenths[-1] / tenths[0])


DECODERS = here.Decoders


class Stub:
    """An encoder that costs next to nothing: it looks a film's vector up by the first byte, and
    adds noise that differs from frame to frame and from batch to batch, for videos are not all the
    same 16."""

    def __init__(self, width: int, clip_frames: int, clock: Clock | None = None) -> None:
        pre = Preprocessing(16, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
        self.spec = EncoderSpec("stub", "none", f"{width:064}", 16, width, pre, parameters=0)
        self.clip_frames = self.clip_tokens = clip_frames
        self.libraries = ()
        self.clock = clock
        random = torch.Generator().manual_seed(width)
        self.shown = torch.randn(256, width, generator=random)
        self.noise = 2 * torch.randn(5000, width, generator=random)
        self.batches = 0

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 to [16, 16, 3]."""
        return resize_and_crop(frame, self.spec.preprocessing)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, F, 16, 16, 3] uint8 to [B, F, width]."""
        if self.clock:
            self.clock.tick()
        first = clips[:, :, 0, 0, 0].long()
        at = self.batches % (len(self.noise) - first.numel())
        self.batches += 1
        noise = self.noise[at : at + first.numel()]
        return self.shown[first] + noise.view(*first.shape, -1)

    def encode_text(self, prompts: tuple[str, ...]) -> np.ndarray:
        """[N, width] float32."""
        return self.shown[: len(prompts)].numpy()


def dataset(folder: Path, videos: int) -> Dataset:
    """Videos with an activity of 10 and 6 steps of 48, over the few films that there are."""
    activity, steps = (
        LabelSet(names, names, "a video of {}")
        for names in (tuple(f"{kind} {i}" for i in range(n)) for kind, n in (("a", 10), ("s", 48)))
    )
    films = [folder / f"film{i}.mp4" for i in range(FILMS)]
    listed = (
        Video(
            id=f"video{i:06}",
            path=films[i % FILMS],
            split="test" if i % 10 == 0 else "train",
            # Four of five can be told by their film.
            activity=activity.names[(i // FILMS if i % 5 == 0 else i % FILMS) % 10],
            steps=tuple(steps.names[i % 8 * 6 : i % 8 * 6 + 6]),
        )
        for i in range(videos)
    )
    return Dataset("growth", tuple(listed), activity, steps)


def draw_films(folder: Path) -> None:
    """16 films of one grey frame each."""
    for i in range(FILMS):
        with av.open(str(folder / f"film{i}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height = 160, 128
            stream.pix_fmt = "yuv420p"
            picture = np.full((128, 160, 3), 16 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for packet in [*stream.encode(frame), *stream.encode()]:
                container.mux(packet)


def own_memory() -> dict[str, int]:
    """Bytes by the names of /proc/self/status: VmHWM at the peak, RssAnon now."""
    return memory_of("self")


def memory_of_children() -> dict[int, int]:
    """Process id -> bytes at the peak."""
    found = {}
    for child in psutil.Process().children():
        with contextlib.suppress(OSError, KeyError):  # it has just ended
            found[child.pid] = memory_of(child.pid)["VmHWM"]
    return found


def memory_of(process: int | str) -> dict[str, int]:
    """Bytes by the names of a process's status."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): 1024 * int(value) for name, value, _ in fields}


@contextlib.contextmanager
def watched(look: Callable[[], dict[Any, int]], every: float = 0.05) -> Iterator[dict[Any, int]]:
    """The largest of each number that `look` gives while this is open, every so many seconds."""
    peaks: dict[Any, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while True:
            last = ended.wait(every)
            for name, value in look().items():
                peaks[name] = max(value, peaks.get(name, 0))
            if last:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
