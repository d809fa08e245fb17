"""Phase one: videos to features. Decode in processes, encode in batches, store; resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pcmci.cache.chunks import exists, file_format
from pcmci.cache.repair import repair as repair_store
from pcmci.cache.schema import Sampling, StoreSpec, VideoTable
from pcmci.cache.store import create_store, open_store
from pcmci.cache.writer import StoreWriter
from pcmci.errors import VideoError, WeightsError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.decoding import Decoder, Decoders, Prepared
from pcmci.extract.intake import Intake, Summary
from pcmci.extract.pair import Encoders, Halves, Made, check_same_weights
from pcmci.extract.table import video_table
from pcmci.plain import plain
from pcmci.remote.url import Place, Url, place

FILES = (".json", ".pt", ".pth", ".pyth", ".bin", ".safetensors")
"""Suffixes by which a name of an encoder or of weights is that of a file."""

AHEAD = 4
"""Videos ahead of the encoders, a decoder, where there are several: with fewer one long video,
whose turn it is, leaves the other decoders without work."""


def extract(
    dataset: Dataset,
    out: str | Path | Url,
    config: ExtractConfig | None = None,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    repair: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
    workers: int | None = None,
) -> Summary:
    """Encode every video of a data set that the store does not have yet.

    Each video ends as done, failed (with its reason) or missing; none is ever replaced. The same
    call again does only what is left; retry_failed: failed ones too; repair: those whose features
    are damaged (`pcmci.cache.repair`).
    scheduler: of a Dask cluster that computes, its address or its scheduler file; workers: so many
    processes of this machine do. The store, to its bits, is the same.
    Raises SpecMismatch where the store was made with other settings, StoppedError after SIGINT or
    SIGTERM (everything encoded by then is stored), ClusterError where a cluster fails.
    """
    config = (config or ExtractConfig()).resolved(dataset.name)
    out = place(out)
    file_format(out)  # a name of no known format is refused before anything is loaded
    exists(out)  # and so is a server that does not answer
    if scheduler is not None or workers is not None:
        from pcmci.cluster.connect import connect
        from pcmci.extract.distributed import ClusterExtraction

        with connect(scheduler, workers, config.device) as client:
            extraction = ClusterExtraction(client, dataset, out, config, progress)
            return extraction.run(overwrite, retry_failed, repair)
    encoders = Encoders.load(config)
    spec = make_spec(dataset, video_table(dataset), config, encoders.made)
    prepare_store(out, spec, dataset, encoders.text, overwrite=overwrite, repair=repair)
    with StoreWriter(out) as writer:
        return _Extraction(config, encoders, Intake(dataset, writer, progress)).run(retry_failed)


def make_spec(dataset: Dataset, table: VideoTable, config: ExtractConfig, made: Made) -> StoreSpec:
    """Everything that the features will depend on."""
    return StoreSpec(
        dataset=dataset.name,
        activity=dataset.activity,
        steps=dataset.steps,
        sampling=Sampling(config.frames, config.views),
        vlm=made.vlm,
        video=made.video,
        precision=made.precision,
        libraries=made.libraries,
        videos_sha256=table.digest(),
    )


def prepare_store(
    out: Place,
    spec: StoreSpec,
    dataset: Dataset,
    text: Callable[[Sequence[str]], np.ndarray],
    *,
    overwrite: bool,
    repair: bool,
) -> None:
    """A store at `out` that a writer can go on with: made anew, or there and of the same spec.

    text: prompts to their embeddings [N, D]. Raises SpecMismatch.
    """

    def embed(labels: str) -> np.ndarray:
        return text(spec.labels(labels).prompts)

    if overwrite or not exists(out):
        texts = {labels: embed(labels) for labels in spec.label_sets}
        create_store(out, spec, video_table(dataset), texts, overwrite=overwrite)
        return
    for damage in repair_store(out, spec, embed) if repair else ():
        tqdm.write(f"repairing: {plain(damage)}", file=sys.stderr)
    with open_store(out) as store:
        store.check_spec(spec, video_table(dataset))


class _Extraction:
    """Videos of a data set in this process: the main thread encodes, processes decode."""

    def __init__(self, config: ExtractConfig, encoders: Encoders, intake: Intake) -> None:
        self.encoders, self.intake = encoders, intake
        self.sampling = Sampling(config.frames, config.views)
        self.threads = encoders.decode_threads(config)
        self.decode_seconds = config.decode_seconds
        self.halves = Halves(encoders, self.sampling.views)

    def run(self, retry_failed: bool) -> Summary:
        pending = self.intake.pending(retry_failed)
        with self.intake.taking(pending, self.encoders.described(self.sampling)):
            self._encode_all(pending)
        return self.intake.summary

    def _encode_all(self, pending: list[int]) -> None:
        batchers = self.encoders.batchers()
        for row, decoded in self._decoded(pending):
            if isinstance(decoded, VideoError):
                self.intake.fail(row, str(decoded))
                continue
            for name, clips in decoded.items():
                self._collect(name, batchers[name].push(row, clips))
        for name, batcher in batchers.items():
            self._collect(name, batcher.flush())

    def _decoded(self, pending: list[int]) -> Iterator[tuple[int, Prepared | VideoError]]:
        """Decoded videos in the order of their rows, a few ahead of the encoders."""
        todo, stop, summary = iter(pending), self.intake.stop, self.intake.summary
        most = 2 if self.threads == 1 else AHEAD * self.threads
        ahead: deque[tuple[int, Future[Prepared]]] = deque()
        with Decoders(
            self.threads, self.sampling, self.encoders.inputs, self.decode_seconds
        ) as decoders:
            while True:
                while len(ahead) < most and not stop.number:
                    if (row := next(todo, None)) is None:
                        break
                    path = self.intake.dataset.videos[row].path
                    assert path is not None  # `Intake.pending` recorded those as missing
                    ahead.append((row, decoders.submit(path)))
                if stop.number:  # what has begun is finished and stored
                    ahead = deque(one for one in ahead if not one[1].cancel())
                if not ahead:
                    return
                row, task = ahead.popleft()
                waiting = time.perf_counter()
                error = task.exception()
                summary.waiting += time.perf_counter() - waiting
                if error is None:
                    yield row, task.result()
                elif isinstance(error, VideoError):
                    yield row, error
                else:
                    raise error

    def _collect(self, name: str, finished: Iterator[tuple[int, np.ndarray]]) -> None:
        for row, features in self.halves.join(name, finished):
            self.intake.take(row, **features)


def encode_files(
    paths: Sequence[Place],
    spec: StoreSpec,
    *,
    vlm: str | None = None,
    video_encoder: str | None = None,
    vlm_weights: str | None = None,
    video_weights: str | None = None,
    device: str = "auto",
) -> tuple[dict[str, np.ndarray], dict[Place, str]]:
    """New videos through the encoders of an existing store, without one: for prediction.

    Returns the features of view 0 by encoder, [m, L, D] and [m, Lv, Dv], of the videos that could
    be decoded, in their order; and path -> reason of those that could not.
    vlm, video_encoder, vlm_weights, video_weights: where a config or weights lie now, if not where
    the spec says. Raises WeightsError where they are not there, and where weights are not those
    that the spec names, by their sha256.
    """
    given = {
        "--vlm": vlm or spec.vlm.name,
        "--vlm-weights": vlm_weights or spec.vlm.weights,
        "--video-encoder": video_encoder or spec.video.name,
        "--video-weights": video_weights or spec.video.weights,
    }
    for flag, file in given.items():
        if Path(file).suffix in FILES and not Path(file).exists():
            raise WeightsError(
                f"{file} is not there, with which the features were made; {flag} names where it "
                "lies now"
            )
    config = ExtractConfig(
        frames=spec.sampling.frames,
        vlm=given["--vlm"],
        vlm_weights=given["--vlm-weights"],
        video_encoder=given["--video-encoder"],
        video_weights=given["--video-weights"],
        precision=spec.precision,
        device=device,
    )
    encoders = Encoders.load(config)
    check_same_weights(spec, encoders)
    sampling = dataclasses.replace(spec.sampling, views=1)
    failures: dict[Place, str] = {}
    batchers = encoders.batchers()
    encoded: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in batchers}
    decoder = Decoder(sampling, encoders.inputs, config.decode_seconds)
    with contextlib.closing(decoder):
        for row, path in enumerate(tqdm(paths, "encode", unit="video", disable=None, leave=False)):
            try:
                clips = decoder.prepare(path)
            except VideoError as error:
                failures[path] = str(error)
                continue
            for name, batcher in batchers.items():
                encoded[name] += batcher.push(row, clips[name])
    for name, batcher in batchers.items():
        encoded[name] += batcher.flush()
    # Rounded as a store would, so that a prediction is that of the stored features.
    features = {
        name: np.array([f.reshape(-1, f.shape[-1]) for _, f in videos]).astype(np.float16)
        for name, videos in encoded.items()
    }
    return features, failures
