"""Phase one: videos to features. Decode in processes, encode in batches, store; resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pcmci.cache.chunks import exists, file_format
from pcmci.cache.repair import repair as repair_store
from pcmci.cache.schema import Sampling, Status, StoreSpec, VideoTable
from pcmci.cache.store import create_store, open_store
from pcmci.cache.writer import StoreWriter
from pcmci.device import choose_device, choose_precision, keep_freed_memory
from pcmci.errors import VideoError, WeightsError
from pcmci.extract.batching import Batcher
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.decoding import Decoder, Decoders, Input, Prepared
from pcmci.extract.encoders import ENCODERS
from pcmci.extract.encoders.clip import ClipEncoder
from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.frames import decoder_versions
from pcmci.extract.table import video_table
from pcmci.remote.url import Place, Url, place
from pcmci.stopping import Stop, StoppedError, stop_signals

AHEAD = 4
"""Videos ahead of the encoders, a decoder, where there are several: with fewer one long video,
whose turn it is, leaves the other decoders without work."""

EXTRACTOR = "2"
"""Raised when this program would compute other features from the same videos and weights."""


@dataclass
class Summary:
    """How an extraction ended.

    counts: videos by status, over the whole store. failures: id -> reason, of this run.
    seconds: of decoding and encoding. waiting: of these, the seconds in which the encoders waited
    for frames. videos, frames: encoded in this run.
    """

    counts: dict[Status, int]
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    waiting: float = 0.0
    videos: int = 0
    frames: int = 0


@dataclass
class Encoders:
    """Both frozen encoders, where they run."""

    vlm: ClipEncoder
    video: Encoder
    device: torch.device
    precision: str
    batch_frames: int

    @classmethod
    def load(cls, config: ExtractConfig) -> Encoders:
        """Raises UsageError for a device that is not there, WeightsError for weights."""
        device = choose_device(config.device)
        if device.type == "cpu":
            keep_freed_memory()
        precision = choose_precision(config.precision, device)
        if precision == "fp32":  # cuDNN would round the patch embedding to TF32's ten bits
            torch.backends.cudnn.allow_tf32 = False
        where: dict[str, Any] = {
            "device": str(device),
            "precision": precision,
            "frames": config.frames,
        }
        return cls(
            vlm=ENCODERS["vlm"](config.vlm, config.vlm_weights, **where),
            video=ENCODERS["video"](config.video_encoder, config.video_weights, **where),
            device=device,
            precision=precision,
            batch_frames=config.batch_frames or (256 if device.type == "cuda" else 8),
        )

    def batchers(self) -> dict[str, Batcher]:
        """`vlm` and `video`, each with batches of about `batch_frames` frames."""
        return {
            name: Batcher(encoder, max(1, self.batch_frames // encoder.clip_frames), self.device)
            for name, encoder in self.named.items()
        }

    @property
    def named(self) -> dict[str, Encoder]:
        """`vlm` and `video`."""
        return {"vlm": self.vlm, "video": self.video}

    @property
    def inputs(self) -> dict[str, Input]:
        """What each wants of a frame."""
        return {n: Input(e.spec.preprocessing, e.clip_frames) for n, e in self.named.items()}


def extract(
    dataset: Dataset,
    out: str | Path | Url,
    config: ExtractConfig | None = None,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    repair: bool = False,
    progress: bool = True,
) -> Summary:
    """Encode every video of a data set that the store does not have yet.

    Each video ends as done, failed (with its reason) or missing; none is ever replaced. The same
    call again does only what is left; retry_failed: failed ones too; repair: those whose features
    are damaged (`pcmci.cache.repair`).
    Raises SpecMismatch where the store was made with other settings, StoppedError after SIGINT or
    SIGTERM (everything encoded by then is stored).
    """
    config = (config or ExtractConfig()).resolved(dataset.name)
    out = place(out)
    file_format(out)  # a name of no known format is refused before anything is loaded
    begin = overwrite or not exists(out)  # and so is a server that does not answer
    encoders = Encoders.load(config)
    table = video_table(dataset)
    spec = make_spec(dataset, table, config, encoders)

    def text(labels: str) -> np.ndarray:
        return encoders.vlm.encode_text(spec.labels(labels).prompts)

    if begin:
        texts = {labels: text(labels) for labels in spec.label_sets}
        create_store(out, spec, table, texts, overwrite=overwrite)
    else:
        for damage in repair_store(out, spec, text) if repair else ():
            tqdm.write(f"repairing: {damage}", file=sys.stderr)
        with open_store(out) as store:
            store.check_spec(spec)
    with StoreWriter(out) as writer:
        return _Extraction(dataset, config, encoders, writer, progress).run(retry_failed)


def make_spec(
    dataset: Dataset, table: VideoTable, config: ExtractConfig, encoders: Encoders
) -> StoreSpec:
    """Everything that the features will depend on."""
    return StoreSpec(
        dataset=dataset.name,
        activity=dataset.activity,
        steps=dataset.steps,
        sampling=Sampling(config.frames, config.views),
        vlm=encoders.vlm.spec,
        video=encoders.video.spec,
        precision=encoders.precision,
        libraries=library_versions(),
        videos_sha256=table.digest(),
    )


def library_versions() -> dict[str, str]:
    """Of everything that pixels and features pass through."""
    names = ("torch", "open_clip_torch", "timm", "pillow", "numpy")
    return {
        "extractor": EXTRACTOR,
        **decoder_versions(),
        **{name: version(name) for name in names},
    }


class _Extraction:
    """One run of the pipeline. The main thread encodes, processes decode, one thread writes."""

    def __init__(
        self,
        dataset: Dataset,
        config: ExtractConfig,
        encoders: Encoders,
        writer: StoreWriter,
        progress: bool,
    ) -> None:
        self.dataset, self.encoders, self.writer = dataset, encoders, writer
        self.sampling = Sampling(config.frames, config.views)
        self.threads = config.decode_threads or (8 if encoders.device.type == "cuda" else 1)
        self.decode_seconds = config.decode_seconds
        self.progress = progress
        self.summary = Summary(counts={})
        self.half: dict[int, dict[str, np.ndarray]] = {}
        self.writes: deque[Future[None]] = deque()

    def run(self, retry_failed: bool) -> Summary:
        pending = self._pending(retry_failed)
        self._say_what_is_ahead(pending)
        began = time.perf_counter()
        with stop_signals() as stop, ThreadPoolExecutor(1) as self.write_thread:
            with self._bar(len(pending)) as self.bar:
                self._encode_all(pending, stop)
            while self.writes:
                self.writes.popleft().result()
        self.summary.seconds = time.perf_counter() - began
        self.summary.counts = self.writer.counts
        if stop.number:
            left = len(self.writer.pending)
            raise StoppedError(
                stop.number, f"{left} videos are left: the same command goes on from here"
            )
        return self.summary

    def _pending(self, retry_failed: bool) -> list[int]:
        """Rows to do. What was missing and is there now is to do; what is not there is missing."""
        videos = self.dataset.videos
        found = [row for row in self.writer.rows(Status.MISSING) if videos[row].path is not None]
        self.writer.reset(found)
        if retry_failed:
            self.writer.reset(self.writer.rows(Status.FAILED))
        for row in self.writer.pending:
            if videos[row].path is None:
                self.writer.missing(row, "not on disk")
        return [int(row) for row in self.writer.pending]

    def _encode_all(self, pending: list[int], stop: Stop) -> None:
        batchers = self.encoders.batchers()
        for row, decoded in self._decoded(pending, stop):
            if isinstance(decoded, VideoError):
                self._fail(row, decoded)
                continue
            for name, clips in decoded.items():
                self._collect(name, batchers[name].push(row, clips))
        for name, batcher in batchers.items():
            self._collect(name, batcher.flush())

    def _decoded(
        self, pending: list[int], stop: Stop
    ) -> Iterator[tuple[int, Prepared | VideoError]]:
        """Decoded videos in the order of their rows, a few ahead of the encoders."""
        todo = iter(pending)
        most = 2 if self.threads == 1 else AHEAD * self.threads
        ahead: deque[tuple[int, Future[Prepared]]] = deque()
        with Decoders(
            self.threads, self.sampling, self.encoders.inputs, self.decode_seconds
        ) as decoders:
            while True:
                while len(ahead) < most and not stop.number:
                    if (row := next(todo, None)) is None:
                        break
                    path = self.dataset.videos[row].path
                    assert path is not None  # `_pending` recorded those as missing
                    ahead.append((row, decoders.submit(path)))
                if stop.number:  # what has begun is finished and stored
                    ahead = deque(one for one in ahead if not one[1].cancel())
                if not ahead:
                    return
                row, task = ahead.popleft()
                waiting = time.perf_counter()
                error = task.exception()
                self.summary.waiting += time.perf_counter() - waiting
                if error is None:
                    yield row, task.result()
                elif isinstance(error, VideoError):
                    yield row, error
                else:
                    raise error

    def _collect(self, name: str, finished: Iterator[tuple[int, np.ndarray]]) -> None:
        """Store the videos that both encoders have finished."""
        for row, features in finished:
            encoder = self.encoders.named[name]
            shape = (self.sampling.views, encoder.spec.tokens, encoder.spec.width)
            half = self.half.setdefault(row, {})
            half[name] = features.reshape(shape)
            if len(half) == 2:
                both = self.half.pop(row)
                self._write(row, both["vlm"], both["video"])

    def _write(self, row: int, vlm: np.ndarray, video: np.ndarray) -> None:
        def put() -> None:
            try:
                self.writer.put(row, vlm, video)
            except VideoError as error:  # not finite, or too large for float16
                self.writer.fail(row, str(error))
                self.summary.failures[self.dataset.videos[row].id] = str(error)

        self._later(put)
        self.summary.videos += 1
        self.summary.frames += self.sampling.views * self.sampling.frames
        self._advance()

    def _fail(self, row: int, error: VideoError) -> None:
        self.summary.failures[self.dataset.videos[row].id] = str(error)
        self._later(lambda: self.writer.fail(row, str(error)))
        self._advance()

    def _later(self, write: Any) -> None:
        """Hand a write to the writing thread; wait when it falls behind, raise what it raised."""
        self.writes.append(self.write_thread.submit(write))
        while len(self.writes) > 8 or (self.writes and self.writes[0].done()):
            self.writes.popleft().result()

    def _bar(self, total: int) -> Any:
        # In a job's log a line every half minute is enough.
        interval = 0.1 if sys.stderr.isatty() else 30
        return tqdm(
            total=total, desc="extract", unit="video", disable=not self.progress or not total,
            mininterval=interval,
        )  # fmt: skip

    def _advance(self) -> None:
        self.bar.update()
        seconds = self.bar.format_dict["elapsed"] or 1e-9
        self.bar.set_postfix_str(
            f"{self.summary.frames / seconds:.1f} frames/s, "
            f"waiting {self.summary.waiting / seconds:.0%}, "
            f"failed {len(self.summary.failures)}",
            refresh=False,
        )

    def _say_what_is_ahead(self, pending: list[int]) -> None:
        if not self.progress:
            return
        encoders, counts = self.encoders, self.writer.counts
        tqdm.write(
            f"{encoders.device} {encoders.precision} | "
            + " | ".join(
                f"{name} {e.spec.name} ({e.spec.weights})" for name, e in encoders.named.items()
            )
            + f" | frames {self.sampling.frames}, views {self.sampling.views}",
            file=sys.stderr,
        )
        tqdm.write(
            f"{self.dataset.name}: {counts[Status.DONE]} videos done, {len(pending)} to do, "
            f"{counts[Status.MISSING]} missing, {counts[Status.FAILED]} failed before",
            file=sys.stderr,
        )


def encode_files(
    paths: Sequence[Place],
    spec: StoreSpec,
    *,
    vlm_weights: str | None = None,
    video_weights: str | None = None,
    device: str = "auto",
) -> tuple[dict[str, np.ndarray], dict[Place, str]]:
    """New videos through the encoders of an existing store, without one: for prediction.

    Returns the features of view 0 by encoder, [m, L, D] and [m, Lv, Dv], of the videos that could
    be decoded, in their order; and path -> reason of those that could not.
    vlm_weights, video_weights: where the weights lie now, if not where the spec says. Raises
    WeightsError where they are not those that the spec names, by their sha256.
    """
    config = ExtractConfig(
        frames=spec.sampling.frames,
        vlm=spec.vlm.name,
        vlm_weights=vlm_weights or spec.vlm.weights,
        video_encoder=spec.video.name,
        video_weights=video_weights or spec.video.weights,
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


def check_same_weights(spec: StoreSpec, encoders: Encoders) -> None:
    """Raises WeightsError naming the encoder that is not the one of the spec."""
    for name, encoder in encoders.named.items():
        wanted = getattr(spec, name)
        if encoder.spec.preprocessing != wanted.preprocessing:
            raise WeightsError(
                f"the {name} encoder {wanted.name!r} prepares frames as "
                f"{encoder.spec.preprocessing}, the run was trained with {wanted.preprocessing}"
            )
        if encoder.spec.sha256 != wanted.sha256:
            raise WeightsError(
                f"the {name} encoder's weights {wanted.weights!r} have sha256 "
                f"{encoder.spec.sha256[:12]}, the run was trained with {wanted.sha256[:12]}"
            )
