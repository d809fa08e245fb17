"""Claim: the feature store costs hardly more than plain files of the same bytes.

    python benchmarks/store.py             a store of COIN's size: 11,827 videos, 484 MB
    python benchmarks/store.py --quick     a twentieth of it, as --scale .05 has it

load          open a store and read all of it, checksums checked / np.fromfile of the same bytes
random reads  64 random videos / the same rows of a memory map
write         make a store and fill it video by video, until it is on disk / ndarray.tofile, fsync

The page cache is warm.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import claims
import numpy as np

from pcmci.cache.disk import delete
from pcmci.cache.schema import (
    EncoderSpec,
    Preprocessing,
    Sampling,
    StoreSpec,
    VideoTable,
)
from pcmci.cache.store import StoreWriter, create_store, open_store

VIDEOS = 11_827
SHAPES = {"vlm": (1, 16, 512), "video": (1, 16, 768)}
FORMATS = {"Zarr": ".zarr", "HDF5": ".h5"}
RANDOM = 64
DRAWS = 10
"""Random reads take a thousandth of the time of the others: so many more pairs are timed."""


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of COIN's videos")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs of each")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    if options.quick:
        options.scale, options.repeats = min(options.scale, 0.05), min(options.repeats, 3)
    n = max(RANDOM, round(options.scale * VIDEOS))
    rng = np.random.default_rng(0)
    arrays = {name: random_half(rng, (n, *shape)) for name, shape in SHAPES.items()}
    rows: list[claims.Row] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in FORMATS:
            rows += measure(Path(folder), name, arrays, rng, options.repeats)
    claims.publish(rows, options.json)


def measure(
    folder: Path, name: str, arrays: dict[str, np.ndarray], rng: np.random.Generator, repeats: int
) -> Iterator[claims.Row]:
    """Write first: what the last run wrote is what the others read."""
    path, n = folder / f"store{FORMATS[name]}", len(arrays["vlm"])
    size = f"{n} videos, {sum(array.nbytes for array in arrays.values()) / 1e6:.0f} MB"

    def remove() -> None:
        """Neither side's time is to hold what giving back the old files takes."""
        delete(path)
        for array in SHAPES:
            plain_path(folder, array).unlink(missing_ok=True)

    pairs = claims.paired(
        lambda: write_store(path, arrays),
        lambda: write_plain(folder, arrays),
        repeats,
        before=remove,
    )
    yield claims.ratio_row("write", name, pairs, aim="at most 1.5", note=size)
    pairs = claims.paired(lambda: load_store(path), lambda: load_plain(folder), repeats)
    yield claims.ratio_row("load", name, pairs, aim="at most 1.5", note=size)

    maps = [
        np.memmap(plain_path(folder, array), np.float16, "r", shape=values.shape)
        for array, values in arrays.items()
    ]
    picked = np.empty(0, np.int64)

    def pick() -> None:
        nonlocal picked
        picked = rng.choice(n, RANDOM, replace=False)

    with open_store(path) as store:
        for array, values in arrays.items():
            assert store.read(array).tobytes() == values.tobytes()
        pairs = claims.paired(
            lambda: [store.read(array, picked) for array in arrays],
            lambda: [values[picked] for values in maps],
            DRAWS * repeats,
            before=pick,
        )
    yield claims.ratio_row("random reads", name, pairs, aim="at most 3", note=f"{RANDOM} of {n}")


def plain_path(folder: Path, array: str) -> Path:
    return folder / f"{array}.bin"


def write_plain(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with open(plain_path(folder, name), "wb") as file:
            array.tofile(file)
            file.flush()
            os.fsync(file.fileno())


def write_store(path: Path, arrays: dict[str, np.ndarray]) -> None:
    spec, table = describe(len(arrays["vlm"]))
    create_store(path, spec, table, {})
    with StoreWriter(path) as writer:
        for row, (vlm, video) in enumerate(zip(arrays["vlm"], arrays["video"], strict=True)):
            writer.put(row, vlm, video)


def load_plain(folder: Path) -> list[np.ndarray]:
    return [np.fromfile(plain_path(folder, name), np.float16) for name in SHAPES]


def load_store(path: Path) -> list[np.ndarray]:
    with open_store(path) as store:
        return [store.read(name) for name in SHAPES]


def describe(n: int) -> tuple[StoreSpec, VideoTable]:
    """A spec and a table of n videos without labels."""
    ids = tuple(f"video{i}" for i in range(n))
    activity, steps = np.full(n, -1, np.int32), np.zeros((n, 0), np.uint8)
    table = VideoTable(ids, ("train",) * n, ids, ids, activity, steps)
    pre = Preprocessing(224, 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    encoders = {
        name: EncoderSpec(name, "random:0", "0" * 64, shape[1], shape[2], pre, 0)
        for name, shape in SHAPES.items()
    }
    spec = StoreSpec(
        dataset="benchmark",
        activity=None,
        steps=None,
        sampling=Sampling(),
        precision="float32",
        libraries={},
        videos_sha256=table.digest(),
        **encoders,
    )
    return spec, table


def random_half(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32).astype(np.float16)


if __name__ == "__main__":
    main()
