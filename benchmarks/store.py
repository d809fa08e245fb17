"""The feature store against plain files: load, random reads, write. All ratios in one run.

    python benchmarks/store.py             a store of COIN's size: 11,827 videos, 484 MB
    python benchmarks/store.py --scale .1  a tenth of it

load    open a store and read all of it, checksums checked / np.fromfile of the same bytes
random  64 random videos / the same rows of a memory map
write   make a store and fill it video by video, until it is on disk / ndarray.tofile and fsync

The page cache is warm. Plain and store take turns; a ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcmci.cache.chunks import delete
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
FORMATS = (".zarr", ".h5")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of COIN's videos")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs of each")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    n = max(64, round(options.scale * VIDEOS))
    rng = np.random.default_rng(0)
    arrays = {name: random_half(rng, (n, *shape)) for name, shape in SHAPES.items()}
    size = sum(array.nbytes for array in arrays.values()) / 1e6
    print(f"{n} videos, {size:.0f} MB, {os.cpu_count()} cores, {options.repeats} pairs of runs")
    print(
        "| claim | format | plain, ms | store, ms | ratio | quartiles |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for suffix in FORMATS:
            measure(Path(folder), suffix, arrays, rng, options.repeats)


def measure(
    folder: Path, suffix: str, arrays: dict[str, np.ndarray], rng: np.random.Generator, repeats: int
) -> None:
    """Write first: what the last run wrote is what the others read."""
    path, n = folder / f"store{suffix}", len(arrays["vlm"])

    def show(
        claim: str,
        plain: Callable[[], object],
        store: Callable[[], object],
        before: Callable[[], object] = lambda: None,
    ) -> None:
        pairs = []
        for _ in range(1 + repeats):  # the first warms
            before()
            pairs.append([seconds(plain), seconds(store)])
        times = np.array(pairs[1:])
        ratio = times[:, 1] / times[:, 0]
        low, median, high = np.quantile(ratio, [0.25, 0.5, 0.75])
        plain_ms, store_ms = 1e3 * np.median(times, axis=0)
        print(
            f"| {claim} | {suffix} | {plain_ms:.1f} | {store_ms:.1f} | **{median:.2f}** | "
            f"{low:.2f} to {high:.2f} |",
            flush=True,
        )

    show(
        "write",
        lambda: write_plain(folder, arrays),
        lambda: write_store(path, arrays),
        before=lambda: delete(path),
    )
    show("load", lambda: load_plain(folder), lambda: load_store(path))
    maps = {
        name: np.memmap(folder / f"{name}.bin", np.float16, "r", shape=array.shape)
        for name, array in arrays.items()
    }
    with open_store(path) as store:
        for name, array in arrays.items():
            assert store.read(name).tobytes() == array.tobytes()

        def rows() -> np.ndarray:
            return rng.choice(n, 64, replace=False)

        def plain() -> list[np.ndarray]:
            picked = rows()
            return [array[picked] for array in maps.values()]

        def ours() -> list[np.ndarray]:
            picked = rows()
            return [store.read(name, picked) for name in maps]

        show("random", plain, ours)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    kept = call()
    taken = time.perf_counter() - began
    del kept  # giving the memory back is nobody's work here
    return taken


def write_plain(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with open(folder / f"{name}.bin", "wb") as file:
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
    return [np.fromfile(folder / f"{name}.bin", np.float16) for name in SHAPES]


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
