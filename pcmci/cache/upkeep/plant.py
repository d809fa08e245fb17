"""A store with a known confounder: the features of another one, with a direction added to frames.

Real videos, real labels, real features; only the shortcut is made up, so that its effect on a head
can be measured on twins (`pcmci.heads.scoring.effects`). The new store has the source's videos and,
of one split, their twins, see `pcmci.cache.planted`.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pcmci.cache.formats.choose import exists
from pcmci.cache.planted import (
    CAUSE,
    NOBODY,
    NONE,
    OTHERWISE,
    SHIFTED,
    TWINS,
    WRONG,
    Planted,
    add,
    draw,
)
from pcmci.cache.schema import FEATURES, NO_VLM, Status, StoreSpec, VideoTable, entities_of
from pcmci.cache.store import Store, check_same, create_store, open_store
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import StoreError, UsageError, VideoError
from pcmci.remote.url import Place
from pcmci.stopping import StoppedError, stop_signals

TRAINING = ("train", "val")
VIDEOS_A_READ = 64


@dataclass(frozen=True)
class Planting:
    """What is asked for; see `Planted`. test_strength: None for `strength`.

    Raises UsageError for a value that is none.
    """

    array: str = "vlm"
    share: float = 0.25
    strength: float = 0.9
    test_strength: float | None = None
    scale: float = 0.5
    run: bool = False
    otherwise: str = "any"
    bound: float = 0.0
    seed: int = 0
    split: str = "test"

    def __post_init__(self) -> None:
        if self.array not in FEATURES:
            raise UsageError(f"--array {self.array}: a store has {' and '.join(FEATURES)}")
        for name in ("share", "strength", "test_strength", "bound"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value:g}: it lies between 0 and 1")
        if not (np.isfinite(self.scale) and self.scale >= 0):
            raise UsageError(f"--scale {self.scale:g}: it is 0 or more, in lengths of the features")
        if self.otherwise not in OTHERWISE:
            raise UsageError(f"--otherwise {self.otherwise}: {' or '.join(OTHERWISE)}")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: a seed is 0 or more")
        if self.bound and self.array != "vlm":
            raise UsageError("--bound: texts are in the VLM's space; --array vlm")


@dataclass(frozen=True)
class _Line:
    """A row of the new store. source: the row of the source whose features it has. companion:
    planted in them, at the places [k]."""

    id: str
    split: str
    source: int
    companion: int
    places: np.ndarray


@dataclass(frozen=True)
class Grown:
    """A planted store. videos: by split. companions: split -> how many videos have one. status: of
    all videos."""

    spec: StoreSpec
    videos: dict[str, int]
    companions: dict[str, int]
    status: dict[str, int]


def plant(
    source: Store,
    out: Place,
    asked: Planting | None = None,
    *,
    vectors: np.ndarray | None = None,
    overwrite: bool = False,
    truth: Path | None = None,
    progress: bool = True,
) -> Grown:
    """Make a planted store; the same call again goes on where it was.

    vectors: [N, D] a direction a label of activity, in place of drawn ones. truth: a CSV file of
    what each video has. Reads and writes the features in portions.
    Raises UsageError for what cannot be planted in this store, SpecMismatch where another store is
    at `out`, StoppedError after a signal.
    """
    asked = asked or Planting()
    if _same_place(source.path, out):
        raise UsageError(f"{out} is the store itself: name another one")
    if truth and not truth.parent.is_dir():
        raise UsageError(f"--truth {truth}: there is no folder {truth.parent}")
    _check(source, asked)
    directions = _directions(source, asked, vectors)
    tokens = _tokens(source, asked.array)
    frames = round(asked.share * tokens)
    if asked.share and not frames:
        raise UsageError(f"--share {asked.share:g} of {tokens} frames is none; 1/{tokens} is one")
    planted = Planted(
        array=asked.array,
        share=asked.share,
        frames=frames,
        strength=asked.strength,
        test_strength=asked.strength if asked.test_strength is None else asked.test_strength,
        scale=asked.scale,
        run=asked.run,
        otherwise=asked.otherwise,
        bound=asked.bound,
        seed=asked.seed,
        split=asked.split,
        directions=hashlib.sha256(directions.astype("<f4").tobytes()).hexdigest(),
        source=f"{source.fingerprint}:{source.content_digest}",
    )
    lines = list(_lines(source, planted))
    table = _table(source, lines)
    spec = dataclasses.replace(
        source.spec,
        dataset=f"{source.spec.dataset} (planted)",
        videos_sha256=table.digest(),
        planted=planted,
    )
    if overwrite or not exists(out):
        text = {name: source.text(name) for name in spec.label_sets}
        for name in spec.label_sets:
            if (entities := source.entities(name)) is not None:
                text[entities_of(name)] = entities
        create_store(out, spec, table, text, overwrite=overwrite, chunk_rows=source.chunk_rows)
    else:
        with open_store(out) as there:
            check_same(out, there.spec, spec, (there.table, table))
    with StoreWriter(out) as writer, stop_signals() as stop:
        pending = writer.pending.tolist()
        with tqdm(
            total=len(lines), initial=len(lines) - len(pending), desc="plant", unit="video",
            disable=not progress, mininterval=0.1 if sys.stderr.isatty() else 30,
        ) as bar:  # fmt: skip
            for start in range(0, len(pending), VIDEOS_A_READ):
                rows = pending[start : start + VIDEOS_A_READ]
                _write(writer, source, [lines[row] for row in rows], rows, planted, directions)
                bar.update(len(rows))
                if stop.number:
                    left = len(writer.pending)
                    raise StoppedError(
                        stop.number, f"{left} videos are left: the same command goes on from here"
                    )
        status = {s.name.lower(): count for s, count in writer.counts.items() if count}
    if truth:
        _write_truth(truth, source, lines)
    return Grown(
        spec,
        dict(Counter(line.split for line in lines)),
        dict(Counter(line.split for line in lines if line.companion != NOBODY)),
        status,
    )


def _same_place(one: Place, other: Place) -> bool:
    """Whatever they are called: by way of a link, or from another folder."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return str(one) == str(other)


def _check(source: Store, asked: Planting) -> None:
    if source.spec.planted:
        raise UsageError(f"{source.path} is planted already: plant in the store that it came from")
    if source.spec.activity is None:
        raise UsageError(f"{source.path} has no activity labels, which companions belong to")
    if asked.array == "vlm" and source.spec.vlm.name == NO_VLM:
        raise UsageError(f"--array vlm: {source.path} was imported without a VLM's half")
    if len(source.spec.activity) < 2:
        raise UsageError(f"{source.path} has one activity: nothing can be told by a companion")
    if asked.split in TRAINING or asked.split not in source.splits:
        scored = sorted(set(source.splits) - set(TRAINING))
        raise UsageError(f"--split {asked.split}: twins are of {' or '.join(scored) or 'no split'}")
    taken = sorted(set(TWINS) & set(source.splits))
    if taken:
        raise UsageError(
            f"{source.path} has a split {taken[0]!r} already: plant in a store without one (of the "
            "kitchen world, pcmci kitchen --twins none)"
        )
    if not len(source.done_rows):
        raise UsageError(f"{source.path} has no features yet")


def _tokens(source: Store, array: str) -> int:
    return (source.spec.vlm if array == "vlm" else source.spec.video).tokens


def _directions(source: Store, asked: Planting, vectors: np.ndarray | None) -> np.ndarray:
    """[N, D] float32 of length 1: drawn at right angles to each other (where there is room for
    that), turned towards the labels' own texts as far as `bound` says."""
    encoder = source.spec.vlm if asked.array == "vlm" else source.spec.video
    shape = (len(source.spec.labels("activity")), encoder.width)
    if vectors is not None:
        given = np.asarray(vectors, np.float32)
        if given.shape != shape or not np.isfinite(given).all():
            raise UsageError(f"--vectors are {list(given.shape)}, not finite numbers {list(shape)}")
        length = np.linalg.norm(given, axis=1, keepdims=True)
        if not length.all():
            raise UsageError(f"--vectors: that of label {int(length.argmin())} is 0")
        return given / length
    drawn = np.random.default_rng([asked.seed, *b"directions"]).standard_normal(shape[::-1])
    if shape[0] <= shape[1]:
        drawn = np.linalg.qr(drawn)[0]
    drawn = drawn.T / np.linalg.norm(drawn, axis=0)[:, None]
    if asked.bound:
        text = source.text("activity").astype(np.float64)
        text /= np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)
        drawn = asked.bound * text + np.sqrt(1 - asked.bound**2) * drawn
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)


def _lines(source: Store, planted: Planted) -> Iterator[_Line]:
    """The source's rows as they are, then the twins."""
    labels, tokens = len(source.spec.labels("activity")), _tokens(source, planted.array)
    drawn = [
        draw(
            planted, row, int(source.activity[row]), labels, tokens,
            training=source.splits[row] in TRAINING,
        )
        for row in range(len(source))
    ]  # fmt: skip
    for row, (own, _, places) in enumerate(drawn):
        yield _Line(source.ids[row], source.splits[row], row, own, places)
    tested = source.rows(planted.split).tolist()
    for split in TWINS:
        for row in tested:
            own, other, places = drawn[row]
            label, of = int(source.activity[row]), row
            companion = {SHIFTED: other, NONE: NOBODY, CAUSE: own}.get(split, own)
            if split == WRONG and label >= 0:
                companion = (label + 1) % labels
            if split == CAUSE:
                of = _another(source, tested, row, planted.seed)
            yield _Line(f"{source.ids[row]}_{split}", split, of, companion, places)


def _another(source: Store, among: Sequence[int], row: int, seed: int) -> int:
    """A video with features and another label, of the same group (a person) where there is one; the
    video itself where there is none."""
    mine = source.activity[row]
    done = [
        one for one in among
        if source.activity[one] not in (-1, mine) and source.status[one] == Status.DONE
    ]  # fmt: skip
    near = [one for one in done if source.groups[one] == source.groups[row]]
    choice = near or done
    if not choice:
        return row
    return choice[int(np.random.default_rng([seed, row, *b"cause"]).random() * len(choice))]


def _table(source: Store, lines: Sequence[_Line]) -> VideoTable:
    """Sessions and groups of twins are those of their videos."""
    ids = tuple(line.id for line in lines)
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise StoreError(f"{source.path} has a video {twice!r}, as a twin is to be called")
    own = {name: row for row, name in enumerate(source.ids)}
    video = [
        own[line.id.removesuffix(f"_{line.split}") if k >= len(source) else line.id]
        for k, line in enumerate(lines)
    ]
    of = [line.source for line in lines]
    return VideoTable(
        ids=ids,
        splits=tuple(line.split for line in lines),
        sessions=tuple(source.sessions[row] for row in video),
        groups=tuple(source.groups[row] for row in video),
        activity=source.activity[of],
        steps=source.steps[of],
    )


def _write(
    writer: StoreWriter,
    source: Store,
    lines: Sequence[_Line],
    rows: Sequence[int],
    planted: Planted,
    directions: np.ndarray,
) -> None:
    of, place = np.unique([line.source for line in lines], return_inverse=True)
    vlm, video = (source.read(array, of) for array in FEATURES)
    for line, row, k in zip(lines, rows, place.tolist(), strict=True):
        reason = source.reasons[line.source]
        match Status(source.status[line.source]):
            case Status.DONE:
                features = {"vlm": vlm[k].copy(), "video": video[k].copy()}
                if line.companion != NOBODY and len(line.places):
                    direction = directions[line.companion]
                    with np.errstate(over="ignore"):  # infinity, which the writer refuses
                        add(features[planted.array], line.places, direction, planted.scale)
                try:
                    writer.put(row, features["vlm"], features["video"], reason)
                except VideoError as error:
                    raise UsageError(f"--scale {planted.scale:g}: {line.id}: {error}") from error
            case Status.FAILED:
                writer.fail(row, reason)
            case Status.MISSING:
                writer.missing(row, reason)
            case Status.PENDING:
                writer.missing(row, "it was pending in the store that was planted in")


def _write_truth(path: Path, source: Store, lines: Sequence[_Line]) -> None:
    names = source.spec.labels("activity").names
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "split", "features_of", "companion_of", "frames"])
    for line in lines:
        there = line.companion != NOBODY
        writer.writerow(
            [
                line.id, line.split, source.ids[line.source],
                names[line.companion] if there else "",
                ";".join(map(str, line.places.tolist())) if there else "",
            ]
        )  # fmt: skip
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text.getvalue())
    partial.replace(path)
