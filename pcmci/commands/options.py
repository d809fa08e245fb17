"""Options that several commands have, and what is meant by them."""

from __future__ import annotations

import os
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
Labels = Annotated[
    str | None,
    typer.Option(help="activity, steps or activity,steps.", show_default="all there are"),
]


def beside_decoding() -> None:
    """Before torch is imported: with a core busy elsewhere (decoding), OpenMP's spinning makes it
    several times slower. Training, which has the cores to itself, is faster with it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def find_store(dataset: str | None, features: str | None) -> Place:
    """The store that was meant; raises UsageError where that is not clear."""
    if features is not None:
        if dataset is not None:
            raise UsageError(f"--dataset {dataset} and --features {features}: name one of them")
        return place(features)
    folder = Path("features")
    suffixes = (".zarr", ".h5", ".hdf5")
    if dataset is not None:
        found = [path for s in suffixes if (path := folder / f"{dataset}{s}").exists()]
        sought = f"{folder}/{dataset}.zarr or .h5"
    else:
        found = sorted(p for p in folder.glob("*") if p.suffix in suffixes)
        sought = f"store under {folder}/"
    if not found:
        raise UsageError(f"no {sought}: run pcmci extract first, or name one: --features")
    if len(found) > 1:
        raise UsageError(f"which one? --features {' | '.join(map(str, found))}")
    if dataset is None:
        print(f"store: {found[0]}", file=sys.stderr)
    return found[0]


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option was on the command line, even with its default's value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
