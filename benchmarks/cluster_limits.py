"""What docs/cluster/limits.py reckons with, measured.

    python benchmarks/cluster_limits.py --json FILE

writer     videos/s and MB/s of `StoreWriter` for float32 features of COIN's shapes, to the commit
scheduler  tasks/s that a `Dispatcher` hands out and gets back, empty ones, two workers here
gather     videos/s whose features come back, in tasks of 4 and of 16 videos

Client, scheduler and workers share this machine's cores: on machines of their own it is more.
About a minute.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
from distributed import Client

from pcmci.cache.store import StoreWriter, create_store
from pcmci.cluster.connect import local_cluster
from pcmci.cluster.dispatch import Dispatcher
from pcmci.extract.station import Encoded

SHAPES = {"vlm": (1, 16, 512), "video": (1, 16, 768)}
SECONDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    values = sum(int(np.prod(shape)) for shape in SHAPES.values())
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "bytes a video, stored": 2 * values,
        "bytes a video, sent": 4 * values,
        "writer, videos/s": writer(),
    }
    with local_cluster(2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        found["scheduler, empty tasks/s"] = tasks(client, 0)
        for count in (4, 16):
            found[f"gather, videos/s in tasks of {count}"] = count * tasks(client, count)
    options.json.write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


def writer(videos: int = 6000) -> float:
    from store import describe

    rng = np.random.default_rng(0)
    some = {name: rng.standard_normal((64, *shape), np.float32) for name, shape in SHAPES.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.zarr"
        spec, table = describe(videos)
        create_store(path, spec, table, {})
        began = time.perf_counter()
        with StoreWriter(path) as out:
            for row in range(videos):
                out.put(row, some["vlm"][row % 64], some["video"][row % 64])
        return videos / (time.perf_counter() - began)


def tasks(client: Client, videos: int) -> float:
    """Tasks a second, each with the features of so many videos."""
    dispatcher: Dispatcher[int] = Dispatcher(
        client, functools.partial(features, videos), int, lambda answer: "", token="limits"
    )
    began = 0.0
    for count, _ in enumerate(dispatcher.run(range(100_000))):
        began = began or time.perf_counter()  # the first one tells that workers are ready
        if (taken := time.perf_counter() - began) > SECONDS:
            return count / taken
    raise AssertionError("there are more")


def features(videos: int, items: list[int]) -> Encoded | None:
    """In a worker."""
    if not videos:
        return None
    made = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    return Encoded({row: {n: a + row for n, a in made.items()} for row in range(videos)})


if __name__ == "__main__":
    main()
