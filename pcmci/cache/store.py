"""A feature store, whole: made with `create_store`, filled by `StoreWriter`, read as `Store`."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcmci.cache.changes import changed_settings, changed_videos
from pcmci.cache.contents import (
    CHUNK_ROWS,
    DIFFERS,
    array_layouts,
    check_stored,
    decode_reason,
    documents,
    read_array,
    read_by_chunk,
    read_features,
    read_head,
)
from pcmci.cache.disk import delete, sync_to_disk, writing
from pcmci.cache.formats.choose import check_exists, exists, file_format, open_chunks
from pcmci.cache.formats.layout import ChunkError, Chunks, Layout
from pcmci.cache.lazy import lazy_array
from pcmci.cache.nearby import beside, forget
from pcmci.cache.replaced import FAIL, replaced_frames
from pcmci.cache.schema import FEATURES, Status, StoreSpec, VideoTable, entities_of
from pcmci.cache.writing.one_writer import writer_lock
from pcmci.cache.writing.writer import StoreWriter, recover
from pcmci.errors import SpecMismatch, StoreError
from pcmci.remote.url import Place, Url, place

if TYPE_CHECKING:
    import dask.array

THREADED_BYTES = 8 * 2**20
"""Reading less than this takes less time than starting threads."""

__all__ = ["Store", "StoreWriter", "create_store", "open_store"]


def create_store(
    path: str | Path | Url,
    spec: StoreSpec,
    table: VideoTable,
    text: Mapping[str, np.ndarray],
    *,
    overwrite: bool = False,
    chunk_rows: int = CHUNK_ROWS,
) -> None:
    """Make a store in which every video is pending. It appears whole, or not at all.

    path: ends in .zarr, .h5 or .hdf5, which decides the format; s3:// and gs:// take a .zarr.
    text: [N, D] of each of `spec.texts`, D being the VLM's width.
    overwrite: replace what is at `path`, once the new store is there (under a URL: before).
    Raises SpecMismatch where a store with another spec is at `path`, StoreError where one with the
    same spec is, or where spec, table and text do not fit together.
    """
    path = place(path)
    file_format(path)
    _check_parts(spec, table, text)
    if exists(path) and not overwrite:
        with open_store(path) as store:
            store.check_spec(spec, table)
    small = {
        **documents(spec, table),
        **{f"text/{name}": np.asarray(array, "<f4") for name, array in text.items()},
        "activity": np.asarray(table.activity, "<i4"),
    }
    if spec.steps is not None:
        small["steps"] = np.asarray(table.steps, "|u1")
    layouts = array_layouts(spec, len(table), chunk_rows)
    for name in documents(spec, table):
        layouts[name] = Layout(small[name].shape, "|u1", len(small[name]))
    with building(path, layouts, overwrite=overwrite) as chunks:
        for name, array in small.items():
            chunks.write(name, 0, array)
        for name in ("status", "reasons", "checksums"):
            # All of them, so that one that is absent later was lost, and is no pending one.
            for chunk in range(layouts[name].chunks):
                chunks.write(name, chunk, np.zeros_like(layouts[name].empty(chunk)))


def check_same(
    path: Place,
    stored: StoreSpec,
    asked: StoreSpec,
    tables: tuple[VideoTable, VideoTable] | None = None,
) -> None:
    """Raises SpecMismatch saying what is asked for that is not the store's.

    tables: of videos, the store's and the one that is asked for, so that those which differ can be
    named.
    """
    videos = changed_videos(stored, asked, tables)
    settings, flags = changed_settings(stored, asked)
    if not videos and not settings:
        return
    said = []
    if videos:
        said.append(f"of other videos: {'; '.join(videos)}")
    if settings:
        more = f"; and {len(settings) - 3} more" if len(settings) > 3 else ""
        said.append(f"with other settings: {'; '.join(settings[:3])}{more}")
    fixed = "The videos of a store are fixed when it is made. " if videos else ""
    same = f", ask for the same ({flags})" if flags and not videos else ""
    raise SpecMismatch(
        f"{path} was made {'; and '.join(said)}. {fixed}Name another --out{same}, or replace it "
        "with --overwrite"
    )


def open_store(path: str | Path | Url) -> Store:
    """Open a store for reading. What a killed writer left in the journal is committed first.

    Raises UsageError for another suffix than .zarr, .h5, .hdf5 and where nothing is; StoreError
    where it is damaged, or of a newer format.
    """
    path = place(path)
    check_exists(path)
    recover(path)
    return Store(path)


class Store:
    """A store as it was when it was opened. Reading is safe from several threads.

    path. spec. ids, splits, sessions, groups: [n]. activity: [n] int32, -1 for none.
    steps: [n, N] uint8. status: [n] uint8, see `Status`. chunk_rows: rows that are stored together,
    so that aligned ranges of as many are the fastest to read. chunks: the file itself.
    """

    def __init__(self, path: str | Path | Url) -> None:
        """Use `open_store`: this reads what is committed alone."""
        self.path: Place = place(path)
        self.chunks = open_chunks(self.path)
        try:
            self.spec, self.table = read_head(self.chunks)
            # The status is written last, so what is read after it is at least as new.
            self.status = read_by_chunk(self.chunks, "status", self.table.ids)
            self._checksums = read_by_chunk(self.chunks, "checksums", self.table.ids)
            check_stored(self.chunks, self.table.ids, self.status)
        except BaseException:
            self.chunks.close()
            raise
        self.ids, self.splits = self.table.ids, self.table.splits
        self.sessions, self.groups = self.table.sessions, self.table.groups
        self.activity, self.steps = self.table.activity, self.table.steps
        self.chunk_rows = self.chunks.layout("status").rows
        self._held: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def fingerprint(self) -> str:
        """Of the spec: what the features depend on."""
        return self.spec.fingerprint

    @property
    def done_rows(self) -> np.ndarray:
        """The rows that have features, ascending."""
        return np.flatnonzero(self.status == Status.DONE)

    @property
    def counts(self) -> dict[Status, int]:
        """Videos by status."""
        return {status: int((self.status == status).sum()) for status in Status}

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """[n] why a video has no features, or how many of its frames were replaced; "" where
        nothing was recorded."""
        return tuple(map(decode_reason, read_by_chunk(self.chunks, "reasons", self.ids)))

    @cached_property
    def content_digest(self) -> str:
        """sha256 of spec, statuses, features (by their checksums) and text embeddings.

        It changes whenever committed data do, and is the same for Zarr and HDF5.
        """
        sha = hashlib.sha256(self.fingerprint.encode())
        texts = (read_array(self.chunks, f"text/{name}") for name in self.spec.texts)
        for array in (self.status, self._checksums, *texts):
            sha.update(array.tobytes())
        return sha.hexdigest()

    @cached_property
    def replaced(self) -> np.ndarray:
        """[n] int32: of each video, how many frames are others than those that were to be taken,
        because it is damaged. 0 but in a store that was made with `--damaged frames`."""
        found = np.zeros(len(self), np.int32)
        if self.spec.damaged != FAIL:
            done = self.status == Status.DONE
            found[done] = [replaced_frames(self.reasons[row]) for row in self.done_rows]
        return found

    def rows(self, split: str, *, done: bool = False) -> np.ndarray:
        """The rows of a split, ascending; with `done`, those that have features.

        Raises StoreError for a split that the store does not have.
        """
        found = np.array(self.splits) == split
        if not found.any():
            raise StoreError(
                f"{self.path} has no split {split!r}, but {', '.join(sorted(set(self.splits)))}"
            )
        return np.flatnonzero(found & (self.status == Status.DONE) if done else found)

    def text(self, labels: str) -> np.ndarray:
        """[N, D] float32: the VLM's embeddings of the `activity` or `steps` prompts."""
        self.spec.labels(labels)
        return read_array(self.chunks, f"text/{labels}")

    def entities(self, labels: str) -> np.ndarray | None:
        """[M, D] float32: the VLM's embeddings of the nouns of the `activity` or `steps` texts;
        None in a store that was made without (`pcmci extract --entities`)."""
        if not self.spec.labels(labels).entities:
            return None
        return read_array(self.chunks, f"text/{entities_of(labels)}")

    def read(
        self,
        array: str,
        rows: slice | np.ndarray | Sequence[int] | None = None,
        view: int | None = None,
    ) -> np.ndarray:
        """Features in float16, every video checked against its checksum.

        array: `vlm` or `video`. rows: a slice, indices in any order or a mask; default: all.
        Returns [m, views, L, D], or [m, L, D] of one view. A video that is not done is NaN; one
        that is done never is. Raises StoreError naming the chunks and videos that are damaged.
        """
        if array not in FEATURES:
            raise StoreError(f"no features are called {array!r}; there are {', '.join(FEATURES)}")
        layout = self.chunks.layout(array)
        if view is not None and not 0 <= view < layout.shape[1]:
            raise StoreError(f"view {view}: {self.path} has views 0 to {layout.shape[1] - 1}")
        views = range(layout.shape[1]) if view is None else range(view, view + 1)
        if rows is None:
            rows = slice(None)
        if not isinstance(rows, slice):  # numpy makes an empty list one of floats
            rows = np.asarray(rows) if len(rows) else np.zeros(0, int)
        index = np.arange(len(self))[rows]
        if array in self._held:
            found = self._held[array][index, views.start : views.stop]
            return found if view is None else found[:, 0]
        out = np.empty((len(index), len(views), *layout.shape[2:]), layout.dtype)
        done = self.status[index] == Status.DONE
        all_done = bool(done.all())
        # As lists: a run may be a single row, and numpy's scalars take longer than the reading.
        checksums = self._checksums[index, FEATURES.index(array)].tolist()
        rows_of = index.tolist()

        def fill(run: slice) -> Iterator[tuple[int, ChunkError]]:
            """Read a run of places; yields the rows that are hurt."""
            if not all_done and not done[run].any():
                return
            first = rows_of[run.start]
            if len(views) == layout.shape[1]:
                block = out[run]
            else:
                block = np.empty((run.stop - run.start, *layout.shape[1:]), layout.dtype)
            chunk = first // layout.rows
            try:
                for row in read_features(self.chunks, array, first, block, checksums[run]):
                    if self.status[row] == Status.DONE:
                        yield row, ChunkError(self.path, array, chunk, DIFFERS)
            except ChunkError as error:
                yield from ((row, error) for row in index[run][done[run]].tolist())
            if block.base is not out:
                out[run] = block[:, views.start : views.stop]

        if hurt := dict(
            _over_threads(fill, _runs(index, layout.rows), out.nbytes, self.chunks.requests)
        ):
            chunks = {error.chunk for error in hurt.values()}
            row = min(hurt)
            raise hurt[row].naming([self.ids[row] for row in sorted(hurt)], len(chunks))
        if not all_done:
            out[~done] = np.nan
        return out if view is None else out[:, 0]

    def hold(self, most: int) -> bool:
        """Read all features now, if they take at most `most` bytes, and answer from memory then.

        Returns whether they do. Raises what `read` does.
        """
        layouts = [self.chunks.layout(array) for array in FEATURES]
        if len(self) * sum(layout.row_bytes for layout in layouts) > most:
            return False
        self._held = {array: self.read(array) for array in FEATURES}
        return True

    def to_dask(
        self, array: str, view: int | None = None, *, block_bytes: int = 32 * 2**20
    ) -> dask.array.Array:
        """Features as a lazy dask.array in float16: nothing is read before it is computed.

        array, view: as in `read`, by which every block is read and checked. block_bytes: of a
        block, which is cut where chunks are and is a chunk at least. A graph can go to a cluster
        whose workers see the same path, and does not need this store to stay open. Computing
        raises StoreError where the store has changed since.
        """
        return lazy_array(self, open_store, array, view, block_bytes)

    def check_spec(self, asked: StoreSpec, table: VideoTable | None = None) -> None:
        """Raises SpecMismatch saying in what the store differs from `asked`. table: of the videos
        that are asked for."""
        check_same(self.path, self.spec, asked, None if table is None else (self.table, table))

    def listed(self, *statuses: Status, replaced: bool = False) -> list[dict[str, str]]:
        """The videos of these statuses, each with its split, status and reason. replaced: those
        alone of them in which frames were replaced."""
        columns = zip(self.ids, self.splits, self.status, self.reasons, strict=True)
        return [
            {"video": video, "split": split, "status": Status(s).name.lower(), "reason": reason}
            for video, split, s, reason in columns
            if s in statuses and (not replaced or replaced_frames(reason))
        ]

    def describe(self) -> dict[str, Any]:
        """For a reader: what is in the store and where it came from. Can be written as JSON."""
        spec, splits = self.spec, np.array(self.splits)
        return {
            "path": str(self.path),
            "data set": spec.dataset,
            **({"planted": spec.planted.words} if spec.planted else {}),
            "videos": len(self),
            "status": {status.name.lower(): count for status, count in self.counts.items()},
            "splits": {
                split: f"{int((splits == split).sum())}, {len(self.rows(split, done=True))} done"
                for split in sorted(set(self.splits))
            },
            "labels": {
                name: f"{len(spec.labels(name))}, {spec.labels(name).template!r}"
                + (f", {len(found)} entities" if (found := spec.labels(name).entities) else "")
                for name in spec.label_sets
            },
            **self._described_damage(),
            "frames": spec.sampling.frames,
            "views": spec.sampling.views,
            **{
                name: {
                    "name": encoder.name,
                    "weights": encoder.weights,
                    "sha256": encoder.sha256,
                    "features": f"{encoder.tokens} x {encoder.width}",
                    **({"labels seen": ", ".join(seen)} if (seen := encoder.labels_seen) else {}),
                    **({"windows": f"dense, stride {s}"} if (s := encoder.stride) else {}),
                }
                for name, encoder in (("vlm", spec.vlm), ("video", spec.video))
            },
            "precision": spec.precision,
            "libraries": dict(spec.libraries),
            "format": spec.format_version,
            "fingerprint": self.fingerprint,
            "content": self.content_digest,
        }

    def _described_damage(self) -> dict[str, Any]:
        if self.spec.damaged == FAIL:
            return {}
        videos, frames = int((self.replaced > 0).sum()), int(self.replaced.sum())
        return {"damaged": {"videos with replaced frames": videos, "replaced frames": frames}}

    def close(self) -> None:
        """Afterwards only `read`, `text`, `reasons` and `content_digest` no longer work."""
        self.chunks.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextlib.contextmanager
def building(
    path: Place, layouts: Mapping[str, Layout], *, overwrite: bool = False
) -> Iterator[Chunks]:
    """A new file under another name, which takes the place of `path` when the block has ended.

    Nothing is left of it where the block raises. Raises StoreError where something is at `path`
    and `overwrite` was not asked for.
    """
    if isinstance(path, Url):
        from pcmci.cache.formats.objects import ObjectChunks, building_objects

        with writer_lock(path) as lock:
            _check_free(path, overwrite)
            if not overwrite:
                ObjectChunks(path).check_ours(layouts)
            forget(path)
            with building_objects(path, layouts, lock.check) as objects:
                yield objects
        return
    new, old = beside(path, ".new"), beside(path, ".old")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writer_lock(path):
        _check_free(path, overwrite)
        try:
            with writing(path):
                delete(new)
                delete(old)
            file_format(path).create(new, layouts)
            with contextlib.closing(file_format(path)(new, writable=True)) as chunks:
                yield chunks
                chunks.sync()
            with writing(path):
                forget(path)
                if path.is_dir():  # no rename replaces a folder that holds something
                    path.rename(old)
                new.replace(path)
                sync_to_disk(path.parent)
                delete(old)
        finally:
            delete(new)


def _check_free(path: Place, overwrite: bool) -> None:
    if exists(path) and not overwrite:
        raise StoreError(f"{path} exists already; ask for --overwrite to begin anew")


def _check_parts(spec: StoreSpec, table: VideoTable, text: Mapping[str, np.ndarray]) -> None:
    """Raises StoreError where what a store is to be made of does not fit together."""
    if not len(table):
        raise StoreError("a store needs at least one video")
    if table.digest() != spec.videos_sha256:
        raise StoreError("the spec was made for another table of videos")
    if set(text) != set(spec.texts):
        raise StoreError(f"text is of {sorted(text)}, the spec has {list(spec.texts)}")
    for name, array in text.items():
        if not spec.texts[name]:
            raise StoreError(f"the label set {name} has no labels: leave it out")
        expected = (len(spec.texts[name]), spec.vlm.width)
        if array.shape != expected or not np.isfinite(array).all():
            raise StoreError(
                f"text/{name} is {list(array.shape)}, not finite numbers of shape {list(expected)}"
            )
    steps = 0 if spec.steps is None else len(spec.steps)
    if table.steps.shape != (len(table), steps):
        raise StoreError(
            f"steps are {list(table.steps.shape)}, not {[len(table), steps]} as the spec says"
        )


def _runs(index: np.ndarray, chunk_rows: int) -> list[slice]:
    """Places of rows that follow each other within one chunk."""
    follows = (np.diff(index) == 1) & (index[1:] % chunk_rows != 0)
    borders = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(index)]
    return [slice(a, b) for a, b in itertools.pairwise(borders) if a < b]


def _over_threads(
    fill: Callable[[slice], Iterator[tuple[int, ChunkError]]],
    runs: list[slice],
    size: int,
    requests: int,
) -> list[tuple[int, ChunkError]]:
    """`fill` of every run, in threads where there is enough to read, or each is a request."""
    threads = min(4, os.cpu_count() or 1) if size >= THREADED_BYTES else 1
    threads = max(1, min(len(runs), max(threads, requests)))

    def share(k: int) -> list[tuple[int, ChunkError]]:
        return [hurt for run in runs[k::threads] for hurt in fill(run)]

    if threads == 1:
        return share(0)
    with ThreadPoolExecutor(threads) as pool:
        return [hurt for part in pool.map(share, range(threads)) for hurt in part]
