"""Options that several commands have, and what is meant by them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from pcmci.errors import UsageError
from pcmci.remote.url import Place, place

DatasetName = Annotated[
    str, typer.Option(help="breakfast, coin, charades, folder or kitchen.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
StorePath = Annotated[
    str, typer.Argument(help="A feature store, .zarr or .h5, or s3://….zarr.", metavar="PATH")
]
RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
StoreName = Annotated[str | None, typer.Option(help="The store features/DATASET.zarr (or .h5).")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Of a Dask cluster that does the work: tcp://HOST:8786, or its scheduler file.",
        show_default=False,
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="A store, as features/coin.zarr or s3://bucket/coin.zarr.",
        show_default="the only one under features/",
        metavar="PATH",
    ),
]
WaitWorkers = Annotated[
    float,
    typer.Option(help="Minutes without a worker that can work, after which a cluster's run ends."),
]
SeveralFeatures = Annotated[
    list[str] | None,
    typer.Option(
        help="A store; may be repeated: stores over the same videos are rows of one table.",
        show_default="the only one under features/",
        metavar="PATH",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="activity, steps or activity,steps.", show_default="all there are"),
]


SUFFIXES = (".zarr", ".h5", ".hdf5")


def beside_decoding() -> None:
    """Before torch is imported: with a core busy elsewhere (decoding), OpenMP's spinning makes it
    several times slower. Training, which has the cores to itself, is faster with it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def find_stores(
    dataset: str | None, features: list[str] | None, encoders: str | None = None
) -> list[Place]:
    """The stores that were meant. encoders: names of video encoders, whose stores of the data set
    lie under features/. Raises UsageError where that is not clear."""
    if encoders is None:
        if not features:
            return [find_store(dataset, None)]
        return [find_store(dataset, one) for one in dict.fromkeys(features)]
    if dataset is None or features:
        raise UsageError(f"--encoders {encoders}: goes with --dataset, and without --features")
    there = {path: _video_encoder(path) for path in _under("features", f"{dataset}*")}
    return [_of_encoder(one.strip(), dataset, there) for one in encoders.split(",")]


def _of_encoder(name: str, dataset: str, there: dict[Path, str]) -> Path:
    """The one store of these with that video encoder, by its name or its family's."""
    found = [path for path, encoder in there.items() if encoder == name] or [
        path for path, encoder in there.items() if re.split("[-:]", encoder)[0] == name
    ]
    if len(found) == 1:
        return found[0]
    have = ", ".join(f"{path} ({encoder})" for path, encoder in there.items()) or "none"
    which = f"several: {', '.join(map(str, found))}" if found else f"there are {have}"
    raise UsageError(
        f"--encoders {name}: no one store of {dataset} under features/ has it, {which}; "
        f"next: pcmci extract --dataset {dataset} --video-encoder {name} makes one"
    )


def _video_encoder(path: Path) -> str:
    from pcmci.cache.store import open_store

    with open_store(path) as store:
        return store.spec.video.name


def _under(folder: str, pattern: str) -> list[Path]:
    return sorted(path for path in Path(folder).glob(pattern) if path.suffix in SUFFIXES)


def find_store(dataset: str | None, features: str | None) -> Place:
    """The store that was meant; raises UsageError where that is not clear."""
    if features is not None:
        if dataset is not None:
            raise UsageError(f"--dataset {dataset} and --features {features}: name one of them")
        return place(features)
    if dataset is not None:
        found = [path for s in SUFFIXES if (path := Path(f"features/{dataset}{s}")).exists()]
        sought = f"features/{dataset}.zarr or .h5"
    else:
        found = _under("features", "*")
        sought = "store under features/"
    if not found:
        named = dataset or "NAME"
        raise UsageError(
            f"no {sought} (--features names one elsewhere); next: pcmci extract --dataset {named} "
            "makes one of videos, pcmci demo a small one without any"
        )
    if len(found) > 1:
        raise UsageError(f"which one? --features {' | '.join(map(str, found))}")
    if dataset is None:
        print(f"store: {found[0]}", file=sys.stderr)
    return found[0]
