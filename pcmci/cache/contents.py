"""What lies in a store: the names and layouts of its arrays, and how text becomes bytes.

    vlm         [n, views, L, D] float16      video       [n, views, Lv, Dv] float16
    text/NAME   [N, D] float32, `spec.texts`  activity    [n] int32, index or -1
    steps       [n, N] uint8, 0 or 1          status      [n] uint8, see `Status`
    checksums   [n, 2] uint32, crc32c of a    reasons     [n, 200] UTF-8, zero-padded
                done video's vlm and video    spec, videos  JSON documents as bytes

Text lies in arrays and not in attributes, so that all of it is under a checksum (and HDF5 bounds
attributes to 64 KB). What has n rows and changes is cut into the same chunks of rows.

Besides its chunk's checksum, which every program knows, each video has its own: one video can be
read alone and still be checked, damage hurts a video and not its 63 neighbours, and features that
are not those of the status beside them (a lost write, two chunks changed over) are noticed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np

from pcmci.cache.formats.layout import ChunkError, Chunks, Layout
from pcmci.cache.schema import FEATURES, Status, StoreSpec, VideoTable
from pcmci.errors import StoreError

CHUNK_ROWS = 64
"""The fastest of 16, 64 and 256 to load; a chunk of 40 KB videos is then about 2.6 MB."""

REASON_BYTES = 200

DOCUMENTS = ("spec", "videos")

DIFFERS = "does not match its videos' checksums"


def array_layouts(spec: StoreSpec, n: int, chunk_rows: int) -> dict[str, Layout]:
    """Every array of a store of n videos but the two documents."""
    rows = min(chunk_rows, n)  # HDF5 cannot have chunks larger than the array
    views = spec.sampling.views
    layouts = {
        "vlm": Layout((n, views, spec.vlm.tokens, spec.vlm.width), "<f2", rows),
        "video": Layout((n, views, spec.video.tokens, spec.video.width), "<f2", rows),
        "activity": Layout((n,), "<i4", n),
        "status": Layout((n,), "|u1", rows),
        "reasons": Layout((n, REASON_BYTES), "|u1", rows),
        "checksums": Layout((n, len(FEATURES)), "<u4", rows),
    }
    for name, texts in spec.texts.items():
        layouts[f"text/{name}"] = Layout((len(texts), spec.vlm.width), "<f4", len(texts))
    if spec.steps is not None:
        layouts["steps"] = Layout((n, len(spec.steps)), "|u1", n)
    return layouts


def documents(spec: StoreSpec, table: VideoTable) -> dict[str, np.ndarray]:
    """`spec` and `videos` as bytes."""
    videos = {name: getattr(table, name) for name in ("ids", "splits", "sessions", "groups")}
    texts = {"spec": spec.to_json(), "videos": json.dumps(videos, ensure_ascii=False)}
    return {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}


def read_array(chunks: Chunks, array: str) -> np.ndarray:
    """A whole array, for the small ones. Raises ChunkError."""
    layout = chunks.layout(array)
    whole = np.empty(layout.shape, layout.dtype)
    for chunk in range(layout.chunks):
        chunks.read(array, chunk, whole[layout.span(chunk)])
    return whole


def read_head(chunks: Chunks) -> tuple[StoreSpec, VideoTable]:
    """Raises StoreError where spec, table and arrays do not fit together, or the format is newer,
    ChunkError where one of the documents is damaged."""
    try:
        text = read_array(chunks, "spec").tobytes().decode(errors="replace")
        spec = StoreSpec.from_json(text)
        table = _read_table(chunks, spec)
    except ChunkError:
        raise
    except StoreError as error:
        raise StoreError(f"{chunks.path} cannot be used: {error}") from error
    rows = chunks.layout("status").rows
    for array, expected in array_layouts(spec, len(table), rows).items():
        found = chunks.layout(array)
        if found != expected:
            raise StoreError(
                f"{chunks.path} is damaged: {array} is {_shown(found)}, "
                f"its spec says {_shown(expected)}"
            )
    return spec, table


def read_chunk(chunks: Chunks, array: str, chunk: int, out: np.ndarray) -> None:
    """Raises ChunkError, also for a status that is none."""
    chunks.read(array, chunk, out)
    if array == "status" and out.max() > max(Status):
        raise ChunkError(chunks.path, array, chunk, f"says {out.max()}, which is no status")


def read_by_chunk(
    chunks: Chunks, array: str, ids: Sequence[str], torn: Collection[int] = ()
) -> np.ndarray:
    """A small array of n rows. Chunks in `torn` that cannot be read are zeros (pending).

    Raises StoreError naming the videos of another chunk that cannot be read.
    """
    layout = chunks.layout(array)
    whole = np.zeros(layout.shape, layout.dtype)

    def fill(chunk: int) -> None:
        span = layout.span(chunk)
        try:
            read_chunk(chunks, array, chunk, whole[span])
        except ChunkError as error:
            if chunk not in torn:
                raise error.naming(ids[span]) from error
            whole[span] = 0

    if chunks.requests == 1:
        for chunk in range(layout.chunks):
            fill(chunk)
    else:
        with ThreadPoolExecutor(chunks.requests) as pool:
            list(pool.map(fill, range(layout.chunks)))
    return whole


def stored_reasons(
    chunks: Chunks,
    ids: Sequence[str],
    status: np.ndarray,
    torn: Collection[int] = (),
    *,
    of_done: bool = False,
) -> dict[int, str]:
    """Row -> reason, where one was recorded. status: [n]. Only chunks with a video that is neither
    done nor pending are read: all reasons together are larger than all the rest of the table.
    of_done: those too of videos that are done, whose frames may have been replaced.
    """
    layout = chunks.layout("reasons")
    rows = np.flatnonzero((status != Status.PENDING) & (of_done | (status != Status.DONE)))
    found: dict[int, str] = {}
    for chunk in np.unique(rows // layout.rows).tolist():
        if chunk in torn:
            continue
        span = layout.span(chunk)
        block = layout.empty(chunk)
        try:
            read_chunk(chunks, "reasons", chunk, block)
        except ChunkError as error:
            raise error.naming(ids[span]) from error
        for place in np.flatnonzero(block[:, 0]).tolist():
            found[span.start + place] = decode_reason(block[place])
    return found


def checksum(features: np.ndarray) -> int:
    """crc32c of one video's features of one kind."""
    return int(google_crc32c.value(features))


def read_features(
    chunks: Chunks, array: str, first: int, out: np.ndarray, checksums: Sequence[int] | np.ndarray
) -> list[int]:
    """Read rows `first` and following, all of one chunk, into `out` [m, views, L, D].

    checksums: [m]. Returns the rows that do not match theirs. Raises ChunkError where the chunk is
    missing or cut short.
    """
    chunk, start = divmod(first, chunks.layout(array).rows)
    chunks.read_rows(array, chunk, start, out)
    return [first + i for i, row in enumerate(out) if checksum(row) != checksums[i]]


def check_stored(chunks: Chunks, ids: Sequence[str], status: np.ndarray) -> None:
    """Raises StoreError where a video is done and the chunk of its features does not exist.

    Without this a lost chunk would read as fill, and no checksum would notice.
    """
    layout = chunks.layout("status")
    done = np.flatnonzero(status == Status.DONE)
    needed = set((done // layout.rows).tolist())
    for array in FEATURES:
        for chunk in sorted(needed - chunks.stored(array)):
            hurt = [ids[row] for row in done.tolist() if row // layout.rows == chunk]
            raise ChunkError(chunks.path, array, chunk, "is missing").naming(hurt)


def encode_reason(reason: str) -> np.ndarray:
    """[200] uint8: one line, cut at the border of a character, padded with zeros."""
    line = " ".join(reason.replace("\0", " ").split())
    cut = line.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore").encode()
    return np.frombuffer(cut.ljust(REASON_BYTES, b"\0"), np.uint8)


def decode_reason(row: np.ndarray) -> str:
    """The text of `encode_reason`."""
    return row.tobytes().rstrip(b"\0").decode(errors="replace")


def _read_table(chunks: Chunks, spec: StoreSpec) -> VideoTable:
    try:
        videos = json.loads(read_array(chunks, "videos").tobytes())
        activity = read_array(chunks, "activity")
        steps = np.zeros((len(activity), 0), np.uint8)
        if spec.steps is not None:
            steps = read_array(chunks, "steps")
        known: dict[str, str] = {}  # most names stand in several columns
        columns = {
            name: tuple(known.setdefault(one, one) for one in column)
            for name, column in videos.items()
        }
        table = VideoTable(**columns, activity=activity, steps=steps)
        same = table.digest() == spec.videos_sha256
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"its table of videos is damaged: {error}") from error
    if not same:
        raise StoreError("its table of videos is not the one that its spec was made for")
    return table


def _shown(layout: Layout) -> str:
    return f"{list(layout.shape)} {np.dtype(layout.dtype).name} in chunks of {layout.rows}"
