"""`pcmci extract`: videos to a store."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any

import typer

from pcmci.cluster.patience import WAIT_MINUTES
from pcmci.commands.options import (
    AsJson,
    DatasetName,
    Scheduler,
    WaitWorkers,
    beside_decoding,
)
from pcmci.commands.showing import print_json, show_worker
from pcmci.extract.config import ExtractConfig
from pcmci.flags import with_flags
from pcmci.remote.url import Place, place

EXTRACT_SETTINGS: dict[str, tuple[type, dataclasses.Field[Any]]] = {
    field.name: (ExtractConfig, field) for field in dataclasses.fields(ExtractConfig)
}


@with_flags(EXTRACT_SETTINGS)
def extract(
    dataset: DatasetName,
    videos: Annotated[
        str | None,
        typer.Option(
            help="Folder of the videos, or a URL: s3://, gs:// or https://.",
            show_default="data/DATASET/videos",
            metavar="PATH",
        ),
    ] = None,
    annotations: Annotated[
        str | None,
        typer.Option(
            help="Annotation file or folder, or a URL.",
            show_default="in data/DATASET",
            metavar="PATH",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="The store, .zarr or .h5, or s3://….zarr.",
            show_default="features/DATASET.zarr",
            metavar="PATH",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try videos again that failed before.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Compute again what is damaged (see store verify)."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew; asks first on a terminal.")
    ] = False,
    scheduler: Scheduler = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes of this machine that decode and encode, one a GPU where there are "
            "several.",
            show_default="this process alone",
        ),
    ] = None,
    wait_workers: WaitWorkers = WAIT_MINUTES,
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run the frozen encoders once over all videos and keep their features in a store.

    The same command again does only what is not done. On a Dask cluster (--scheduler) the store is
    the same: see docs/cluster.

    Example: pcmci extract --dataset coin --videos /data/coin/videos --vlm-weights openai

    Example: pcmci extract --dataset folder --videos s3://bucket/films --out features/films.zarr
    """
    beside_decoding()
    store = place(out or f"features/{dataset}.zarr")
    config = ExtractConfig(**settings)
    from pcmci.cache.formats.choose import exists
    from pcmci.extract.datasets import load_dataset

    found = load_dataset(dataset, videos, annotations)
    for note in found.notes:
        print(note, file=sys.stderr)
    if overwrite and sys.stdin.isatty() and exists(store):
        typer.confirm(f"{store} will be deleted. Go on?", abort=True)
    from pcmci.extract.pipeline import extract as run_extract

    summary = run_extract(
        found, store, config, overwrite=overwrite, retry_failed=retry_failed, repair=repair,
        progress=not as_json, scheduler=scheduler, workers=workers, wait_workers=wait_workers,
    )  # fmt: skip
    _show_summary(summary, store, as_json, learnable=bool(found.activity or found.steps))


def _show_summary(summary: Any, out: Place, as_json: bool, learnable: bool) -> None:
    counts = {status.name.lower(): count for status, count in summary.counts.items()}
    if as_json:
        print_json(
            {
                "store": str(out),
                "counts": counts,
                "failures": summary.failures,
                **({"replaced": summary.replaced} if summary.replaced else {}),
                "videos": summary.videos,
                "frames": summary.frames,
                "seconds": summary.seconds,
                "waiting_seconds": summary.waiting,
                "workers": {
                    name: {**dataclasses.asdict(one), "waiting_seconds": one.waiting}
                    for name, one in summary.workers.items()
                },
            }
        )
        return
    for video, reason in summary.failures.items():
        print(f"failed: {video}: {reason}")
    for video, note in summary.replaced.items():
        print(f"damaged: {video}: {note}")
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{out}: {shown}")
    if summary.videos:
        print(
            f"{summary.videos} videos, {summary.frames} frames in {summary.seconds:.1f} s "
            f"({summary.frames / summary.seconds:.1f} frames/s; the encoders waited "
            f"{summary.waiting_share(summary.seconds):.0%} of it)"
        )
    for name, one in sorted(summary.workers.items()):
        show_worker(name, f"{one.videos} videos, {one.failures} failures", one)
    if learnable:
        print(f"next: pcmci train-heads --features {out} --order ich,ici,ivc")
