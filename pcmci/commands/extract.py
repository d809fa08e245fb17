"""`pcmci extract`: videos to a store."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from pathlib import Path
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
from pcmci.errors import UsageError
from pcmci.extract.config import ExtractConfig
from pcmci.flags import with_flags
from pcmci.plain import plain
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
    follow_links: Annotated[
        bool,
        typer.Option(
            "--follow-links", help="Take symbolic links out of the folder of videos, too."
        ),
    ] = False,
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

    Several video encoders, with commas between them, are one decoding of each video and a store
    each: the first keeps the name, the others have their encoder's behind it.

    Example: pcmci extract --dataset folder --videos s3://bucket/films --out features/films.zarr

    Example: pcmci extract --dataset breakfast --video-encoder timesformer,x3d-m,vit-base
    """
    beside_decoding()
    stores = _stores(place(out or f"features/{dataset}.zarr"), settings)
    from pcmci.cache.formats.choose import exists
    from pcmci.extract.datasets import load_dataset

    found = load_dataset(dataset, videos, annotations, follow_links=follow_links)
    for note in found.notes:
        print(plain(note), file=sys.stderr)
    if overwrite and sys.stdin.isatty():
        for store in filter(exists, stores):
            typer.confirm(f"{plain(store)} will be deleted. Go on?", abort=True)
    from pcmci.extract.pipeline import extract as run_extract
    from pcmci.extract.pipeline import extract_side_by_side

    learnable = bool(found.activity or found.steps)
    if len(stores) > 1:
        summaries = extract_side_by_side(
            found, list(stores.items()), overwrite=overwrite, retry_failed=retry_failed,
            repair=repair, progress=not as_json, scheduler=scheduler, workers=workers,
            wait_workers=wait_workers,
        )  # fmt: skip
        _show_summaries(dict(zip(stores, summaries, strict=True)), as_json, learnable)
        return
    ((store, config),) = stores.items()
    summary = run_extract(
        found, store, config, overwrite=overwrite, retry_failed=retry_failed, repair=repair,
        progress=not as_json, scheduler=scheduler, workers=workers, wait_workers=wait_workers,
    )  # fmt: skip
    _show_summary(summary, store, as_json, learnable)


def _stores(first: Place, settings: dict[str, Any]) -> dict[Place, ExtractConfig]:
    """Where the features of each video encoder go. Raises UsageError for an encoder that is there
    twice, and for weights that are not one for all or one each."""
    names = _parts(settings.get("video_encoder"))
    weights = _parts(settings.get("video_weights"))
    if len(names) < 2:
        return {first: ExtractConfig(**settings)}
    if len(set(names)) < len(names):
        raise UsageError(f"--video-encoder {settings['video_encoder']}: one is there twice")
    if len(weights) > 1 and len(weights) != len(names):
        raise UsageError(
            f"--video-weights {settings['video_weights']}: {len(weights)} for {len(names)} video "
            "encoders; give one for all, or one each"
        )
    stores = {}
    for k, name in enumerate(names):
        own = {**settings, "video_encoder": name}
        if weights:
            own["video_weights"] = weights[k if len(weights) > 1 else 0]
        slug = re.sub(r"[^\w.@-]", "-", Path(name).stem if name.endswith(".json") else name)
        store = first if k == 0 else first.with_name(f"{first.stem}_{slug}{first.suffix}")
        if store in stores:
            raise UsageError(
                f"--video-encoder {settings['video_encoder']}: two would fill {store}; call their "
                "config files differently"
            )
        stores[store] = ExtractConfig(**own)
    return stores


def _parts(text: str | None) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def _show_summaries(summaries: dict[Place, Any], as_json: bool, learnable: bool) -> None:
    if as_json:
        print_json({"stores": [_facts(out, one) for out, one in summaries.items()]})
        return
    for out, one in summaries.items():
        _show_summary(one, out, as_json, learnable=False)
    if learnable:
        features = " ".join(f"--features {shlex.quote(str(out))}" for out in summaries)
        print(f"next: pcmci ablate {features} --orders ich,ici,ivc")


def _facts(out: Place, summary: Any) -> dict[str, Any]:
    """For --json."""
    return {
        "store": str(out),
        "counts": {status.name.lower(): count for status, count in summary.counts.items()},
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


def _show_summary(summary: Any, out: Place, as_json: bool, learnable: bool) -> None:
    if as_json:
        print_json(_facts(out, summary))
        return
    counts = {status.name.lower(): count for status, count in summary.counts.items()}
    for video, reason in summary.failures.items():
        print(f"failed: {plain(video)}: {plain(reason)}")
    for video, note in summary.replaced.items():
        print(f"damaged: {plain(video)}: {plain(note)}")
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{plain(out)}: {shown}")
    if summary.videos:
        print(
            f"{summary.videos} videos, {summary.frames} frames in {summary.seconds:.1f} s "
            f"({summary.frames / summary.seconds:.1f} frames/s; the encoders waited "
            f"{summary.waiting_share(summary.seconds):.0%} of it)"
        )
    for name, one in sorted(summary.workers.items()):
        show_worker(name, f"{one.videos} videos, {one.failures} failures", one)
    if learnable:
        print(f"next: pcmci train-heads --features {shlex.quote(str(out))} --order ich,ici,ivc")
