"""Whether so many workers encode so many times as much, until decoding fills the cores.

    python benchmarks/scale_out.py           1, 2, 4 and 8 workers: some five minutes on 2 cores
    python benchmarks/scale_out.py --quick   1 and 2 workers, few videos

Everything but the encoders is the product's own: `ClusterExtraction` on processes of this machine,
their stations and decoders, the dispatcher, the store's writer. The encoders are stubs that sleep,
as a worker's thread does while a GPU computes, and give features of the real widths 512 and 768.
The films have 320x240 pixels and 5 s, and frames of 224x224 reach the stubs, as they would CLIP.

linear  The stubs sleep so long that eight workers' decoding takes less than half of the cores.
        Throughput over that of one worker, as a share of the number of workers.
knee    They sleep so briefly that decoding fills the cores on the way. The ceiling is cores /
        processor seconds a video of everything that runs: decoders, workers, scheduler, writer. Up
        to the knee, where workers x the throughput of one reaches the ceiling, it should be linear,
        and beyond it the ceiling itself; the rows are throughput over the lower of the two.

A throughput is all of a run's videos over the time from the first look at who is there to the last
video's commit: with handing out, the first decoding, when all of them wait for the cores at once,
and the end, when some workers have nothing to do. That is paid once a run, so longer runs come
closer to linear. Not in it: starting processes, importing torch, starting decoders; a run of a few
videos goes before. The workers are started at once, and fewer are measured by ending some.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import claims
import numpy as np
import psutil
import torch
from distributed import Client, SpecCluster, Worker, WorkerPlugin

from pcmci.cache.disk import delete
from pcmci.cache.schema import EncoderSpec, LabelSet, Preprocessing, Sampling
from pcmci.cluster.connect import local_cluster
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset, Video
from pcmci.extract.distributed import ClusterExtraction
from pcmci.extract.pair import Encoders
from pcmci.extract.video.decoding import prepare_video

WORKERS = (1, 2, 4, 8)
QUICK_WORKERS = (1, 2)
FILMS = 16
TASK = 4
BATCH_FRAMES = 16 * TASK
"""Four videos a task: a batch of 256 frames, the default on CUDA, would be too few tasks a run."""

SHARE = 0.4
"""Of the cores, that decoding takes of the largest cluster in the series `linear`."""

KNEE = 3
"""Workers at which decoding fills the cores in the series `knee`, by decoding's time alone."""


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=26, help="of a run, about")
    options = parser.parse_args()
    sizes = QUICK_WORKERS if options.quick else WORKERS
    seconds, repeats = (2, 1) if options.quick else (options.seconds, options.repeats)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = draw_films(folder)
        decoding = decode_seconds(films)
        sleeps = {
            "linear": max(sizes) * decoding / (SHARE * cores),
            "knee": KNEE * decoding / cores,
        }
        runs: dict[str, dict[int, list[Run]]] = {series: {} for series in sleeps}
        with local_cluster(max(sizes)) as cluster, Client(cluster) as client:
            client.register_plugin(SleepingEncoders())
            for workers in sorted(sizes, reverse=True):
                cluster.scale(workers)
                wait_for(client, workers)
                for series, sleep in sleeps.items():
                    run(client, cluster, folder, films, sleep, 3 * workers)
                    # As many as workers sleep through, or as the cores can decode; whole tasks, as
                    # many for each worker.
                    most = min(workers / sleep, cores / decoding)
                    lasts = seconds if series == "linear" else seconds / 3
                    tasks = max(3, round(lasts * most / (TASK * workers)))
                    count = TASK * workers * tasks
                    runs[series][workers] = [
                        run(client, cluster, folder, films, sleep, count) for _ in range(repeats)
                    ]
    rows = [
        *linear_rows(runs["linear"], sleeps["linear"], decoding),
        *knee_rows(runs["knee"], sleeps["knee"], cores),
    ]
    claims.publish(rows, options.json)


@dataclasses.dataclass(frozen=True)
class Run:
    """videos, seconds: of it. busy: processor seconds of all processes."""

    videos: int
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        return self.videos / self.seconds


def linear_rows(runs: dict[int, list[Run]], sleep: float, decoding: float) -> Iterator[claims.Row]:
    one = float(np.median([each.rate for each in runs[1]]))
    for workers in sorted(runs)[1:]:
        shares = [each.rate / (workers * one) for each in runs[workers]]
        rate = np.median([each.rate for each in runs[workers]])
        note = (
            f"{rate:.2f} / {one:.2f} videos/s, {runs[workers][0].videos} videos; encoding sleeps "
            f"{1e3 * sleep:.0f} ms a video, decoding takes {1e3 * decoding:.0f}"
        )
        case = f"linear: {workers} workers / {workers} x one"
        yield claims.row("scale-out", case, shares, aim="at least 0.90", note=note)
    alone = [each.rate * sleep for each in runs[1]]
    yield claims.row("scale-out", "linear: share of its time in which one worker encodes", alone)


def knee_rows(runs: dict[int, list[Run]], sleep: float, cores: int) -> Iterator[claims.Row]:
    one = float(np.median([each.rate for each in runs[1]]))
    largest = runs[max(runs)]
    busy = float(np.median([each.busy / each.videos for each in largest]))
    ceiling = cores / busy
    for workers in sorted(runs)[1:]:
        expected = min(workers * one, ceiling)
        rate = np.median([each.rate for each in runs[workers]])
        cpu = np.median([each.busy / each.seconds for each in runs[workers]]) / cores
        which = "ceiling" if expected == ceiling else f"{workers} x one"
        note = (
            f"{rate:.1f} videos/s, cores busy {cpu:.0%}; one worker {one:.1f}, ceiling "
            f"{ceiling:.1f} = {cores} cores / {1e3 * busy:.0f} ms a video, so the knee is at "
            f"{ceiling / one:.1f} workers; encoding sleeps {1e3 * sleep:.0f} ms a video"
        )
        values = [each.rate / expected for each in runs[workers]]
        yield claims.row("scale-out", f"knee: {workers} workers / {which}", values, note=note)


def run(
    client: Client, cluster: SpecCluster, folder: Path, films: list[Path], sleep: float, count: int
) -> Run:
    """One extraction to a new store."""
    config = ExtractConfig(
        vlm="stub", video_encoder="stub", vlm_weights=str(sleep / 2), video_weights=str(sleep / 2)
    )
    out = folder / "features.zarr"
    delete(out)
    before = processor_seconds()
    summary = ClusterExtraction(client, dataset(films, count), out, config, False).run(
        overwrite=False, retry_failed=False, repair=False
    )
    busy = processor_seconds() - before
    if summary.videos != count:
        raise SystemExit(f"{summary.videos} of {count} videos were encoded: {summary.failures}")
    return Run(count, summary.seconds, busy)


def wait_for(client: Client, workers: int) -> None:
    """Until so many are there, and no more."""
    client.wait_for_workers(workers)
    while len(client.scheduler_info(n_workers=-1)["workers"]) > workers:
        time.sleep(0.1)


def processor_seconds() -> float:
    """Of this process and all that it has started."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def decode_seconds(films: list[Path]) -> float:
    """Processor seconds a film, in this process."""
    inputs = {name: encoder.input for name, encoder in stubs("0", "0").items()}
    prepare_video(films[0], Sampling(), inputs)
    began = time.process_time()
    for film in films:
        prepare_video(film, Sampling(), inputs)
    return (time.process_time() - began) / len(films)


def dataset(films: list[Path], count: int) -> Dataset:
    activity = LabelSet(("one", "other"), ("one", "other"), "a video of {}")
    videos = (
        Video(f"video{i:06}", films[i % len(films)], "train", activity.names[i % 2], ())
        for i in range(count)
    )
    return Dataset("scale-out", tuple(videos), activity, None)


def draw_films(folder: Path) -> list[Path]:
    """Of 5 s, each of other noise that moves."""
    films = []
    for i in range(FILMS):
        base = np.random.default_rng(i).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        base = base.repeat(4, axis=0).repeat(4, axis=1)
        films.append(folder / f"film{i}.mp4")
        with av.open(str(films[-1]), "w") as container:
            stream = container.add_stream("mpeg4", rate=15)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for step in range(75):
                picture = np.roll(base, 2 * step, axis=1)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return films


# --- in a worker ----------------------------------------------------------------------------------


class SleepingEncoders(WorkerPlugin):
    """Stubs instead of encoders, in every worker that there is and that will be."""

    name = "sleeping-encoders"

    def setup(self, worker: Worker) -> None:
        Encoders.load = staticmethod(load)  # type: ignore[method-assign, assignment]


def load(config: ExtractConfig) -> Encoders:
    """In the place of `Encoders.load`."""
    named = stubs(config.vlm_weights, config.video_weights)
    return Encoders(
        named["vlm"], named["video"], torch.device("cpu"), "fp32", batch_frames=BATCH_FRAMES
    )  # type: ignore[arg-type]


def stubs(vlm: str, video: str) -> dict[str, Any]:
    """vlm, video: seconds that each sleeps a video."""
    return {"vlm": Stub(512, 1, float(vlm)), "video": Stub(768, 8, float(video))}


class Stub:
    """An encoder that sleeps. seconds: a video."""

    def __init__(self, width: int, clip_frames: int, seconds: float) -> None:
        pre = Preprocessing(224, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
        self.spec = EncoderSpec("stub", str(seconds), f"{width:064}", 16, width, pre, parameters=0)
        self.clip_frames = self.clip_tokens = clip_frames
        self.libraries, self.seconds = (), seconds
        self.input = self  # what `prepare_video` asks: preprocessing and clip_frames
        self.preprocessing = pre

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, F, 224, 224, 3] uint8 to [B, F, width], a matter of each frame's first pixel."""
        frames = clips.shape[0] * clips.shape[1]
        time.sleep(self.seconds * frames / 16)
        first = clips[:, :, 0, 0, :1].float()
        return first * torch.linspace(0.1, 1, self.spec.width)

    def encode_text(self, prompts: tuple[str, ...]) -> np.ndarray:
        """[N, width] float32."""
        return np.ones((len(prompts), self.spec.width), np.float32)


if __name__ == "__main__":
    main()
