"""A store of features that were made elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from pcmci.cache.formats.choose import exists
from pcmci.cache.replaced import FAIL
from pcmci.cache.schema import (
    IMPORTED,
    NO_VLM,
    EncoderSpec,
    Preprocessing,
    Sampling,
    Status,
    StoreSpec,
)
from pcmci.cache.store import Store, check_same, create_store, open_store
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import UsageError, VideoError
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.imported.files import FeatureFiles, guess_layout, pool
from pcmci.extract.table import video_table
from pcmci.remote.url import Place
from pcmci.stopping import StoppedError, stop_signals

NOT_OURS = Preprocessing(0, 0, IMPORTED, (0.0,) * 3, (1.0,) * 3)
"""Nobody here knows how their frames were made."""

LOOKED_AT = 200
"""Files whose shapes tell the layout."""


@dataclass(frozen=True)
class Half:
    """The features of one encoder, a file a video.

    name: what the store calls it. words: the user's, about where it comes from. layout: `TD`, `DT`
    or None to guess. pattern: a file's name with `{id}` in it. how: `middle` or `mean`.
    """

    files: FeatureFiles
    name: str
    words: str = ""
    layout: str | None = None
    pattern: str = "{id}"
    how: str = "middle"


@dataclass
class Imported:
    """layouts: half -> what its axes were taken for. failures: id -> reason. strangers: files that
    no video has. counts: videos by status."""

    layouts: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    strangers: int = 0
    counts: dict[Status, int] = field(default_factory=dict)


class _Source:
    """A half whose files are matched with a data set's videos."""

    def __init__(self, half: Half, dataset: Dataset, frames: int) -> None:
        """Raises UsageError where no video has a file, or the layout cannot be told."""
        self.half, self.frames = half, frames
        self.found = [half.files.find(video.id, half.pattern) for video in dataset.videos]
        there = [name for name in self.found if name is not None]
        if not there:
            some = ", ".join(list(half.files.by_name)[:3])
            wanted = half.pattern.replace("{id}", dataset.videos[0].id)
            raise UsageError(
                f"no file under {half.files.root} is of a video of {dataset.name}: there are "
                f"{some}, …; expected for example {wanted}; --pattern says how they are named"
            )
        self.strangers = len(half.files.by_name) - len(set(there))
        shapes = []
        for name in there[:LOOKED_AT]:
            with contextlib.suppress(VideoError):  # said of its video, later
                shapes.append(half.files.read(name).shape)
        if not shapes:
            raise UsageError(f"none of the files under {half.files.root} can be read as features")
        self.layout = half.layout or guess_layout(shapes)
        axis = 1 if self.layout == "TD" else 0
        widths = [shape[axis] for shape in shapes]
        self.width = max(set(widths), key=widths.count)
        # All that a token depends on: the files, and how they are read.
        read = (half.files.digest(there), self.layout, half.how, half.files.key or "")
        self.digest = hashlib.sha256("\0".join(read).encode()).hexdigest()

    @property
    def spec(self) -> EncoderSpec:
        words = f": {self.half.words}" if self.half.words else ""
        note = f"imported, {self.layout}, {self.half.how}{words}"
        return EncoderSpec(
            self.half.name, note, self.digest, self.frames, self.width, NOT_OURS, parameters=0
        )

    def read(self, row: int) -> np.ndarray:
        """[L, D]. Raises VideoError."""
        name = self.found[row]
        assert name is not None  # the row is missing otherwise
        tokens = self.half.files.read(name)
        tokens = tokens if self.layout == "TD" else tokens.T
        if tokens.shape[1] != self.width:
            raise VideoError(f"its features are {tokens.shape[1]} wide, others {self.width}")
        return pool(tokens, self.frames, self.half.how)


def import_features(
    dataset: Dataset,
    out: Place,
    video: Half,
    frames: int,
    *,
    vlm: Half | Store | None = None,
    text: Callable[[str, Sequence[str]], np.ndarray] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Imported:
    """Make a store of features from files; the same call again goes on where it was.

    vlm: files, a store over the same videos, or None for a store without that half, which serves
    heads that need no text. text: label set and prompts to [N, D], where `vlm` is files.
    A video without a file is missing; one whose features cannot be read, or are not finite, has
    failed. Raises UsageError, SpecMismatch as an extraction does, StoppedError after a signal.
    """
    table = video_table(dataset)
    source = _Source(video, dataset, frames)
    other = _Source(vlm, dataset, frames) if isinstance(vlm, Half) else None
    if isinstance(vlm, Store):
        _check_donor(vlm, table.digest(), frames)
    donor = vlm.spec if isinstance(vlm, Store) else None
    vlm_spec = donor.vlm if donor else other.spec if other else _NOTHING
    spec = StoreSpec(
        dataset=dataset.name,
        activity=dataset.activity,
        steps=dataset.steps,
        sampling=Sampling(frames, 1),
        vlm=vlm_spec,
        video=source.spec,
        precision=donor.precision if donor else "fp32",
        libraries={**(donor.libraries if donor else {}), "numpy": np.__version__},
        videos_sha256=table.digest(),
        damaged=donor.damaged if donor else FAIL,
    )
    if overwrite or not exists(out):
        texts = {name: _text(spec, name, vlm, text) for name in spec.label_sets}
        create_store(out, spec, table, texts, overwrite=overwrite)
    else:
        with open_store(out) as store:
            check_same(out, store.spec, spec, (store.table, table))
    imported = Imported(
        layouts={source.half.name: source.layout}
        | ({other.half.name: other.layout} if other else {}),
        strangers=source.strangers + (other.strangers if other else 0),
    )
    sources = [source, *([other] if other else [])]
    with StoreWriter(out) as writer, stop_signals() as stop:
        videos = dataset.videos
        bar = tqdm(
            writer.pending.tolist(), "import", unit="video", disable=not progress,
            mininterval=0.1 if sys.stderr.isatty() else 30,
        )  # fmt: skip
        for row in bar:
            if stop.number:
                left = len(writer.pending)
                raise StoppedError(
                    stop.number, f"{left} videos are left: the same command goes on from here"
                )
            lost = _lost(row, sources, vlm)
            if lost:
                writer.missing(row, lost)
                continue
            try:
                half = other.read(row) if other else _half(vlm, row, vlm_spec)
                # Frames that were replaced for the donor are so here, for its half.
                note = vlm.reasons[row] if isinstance(vlm, Store) else ""
                writer.put(row, half[None], source.read(row)[None], note)
            except VideoError as error:
                imported.failures[videos[row].id] = str(error)
                writer.fail(row, str(error))
        imported.counts = writer.counts
    return imported


_NOTHING = EncoderSpec(NO_VLM, "none", "0" * 64, 1, 1, NOT_OURS, parameters=0)
"""Of a store without a VLM's half: one zero a video, and a zero a label."""


def _lost(row: int, sources: Sequence[_Source], vlm: Half | Store | None) -> str:
    """Why a video is missing, "" where it is not."""
    for source in sources:
        if source.found[row] is None:
            return f"no {source.half.name} features"
    if isinstance(vlm, Store) and vlm.status[row] != Status.DONE:
        return f"{vlm.path} has no features of it"
    return ""


def _half(vlm: Store | Half | None, row: int, spec: EncoderSpec) -> np.ndarray:
    if isinstance(vlm, Store):
        return vlm.read("vlm", [row], view=0)[0]
    return np.zeros((spec.tokens, spec.width), np.float32)


def _text(
    spec: StoreSpec,
    labels: str,
    vlm: Half | Store | None,
    text: Callable[[str, Sequence[str]], np.ndarray] | None,
) -> np.ndarray:
    """[N, D] of a label set."""
    names = spec.labels(labels)
    if isinstance(vlm, Store):
        if vlm.spec.labels(labels).prompts != names.prompts:
            raise UsageError(f"{vlm.path} has other prompts of {labels}")
        return vlm.text(labels)
    if vlm is None:
        return np.zeros((len(names), 1), np.float32)
    if text is None:
        raise UsageError(
            "features of a VLM need embeddings of the label prompts: --vlm names the model that "
            "makes them, --text a file of them, and --vlm-from a store has both"
        )
    found = text(labels, names.prompts)
    if found.shape != (len(names), spec.vlm.width):
        raise UsageError(
            f"text of {labels} is {list(found.shape)}, the features need "
            f"{[len(names), spec.vlm.width]}"
        )
    return found


def _check_donor(store: Store, digest: str, frames: int) -> None:
    if store.spec.videos_sha256 != digest:
        raise UsageError(f"{store.path} is over other videos, splits or labels")
    if store.spec.sampling.frames != frames:
        raise UsageError(
            f"{store.path} has {store.spec.sampling.frames} frames a video: --frames "
            f"{store.spec.sampling.frames}"
        )
