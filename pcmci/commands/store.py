"""`pcmci store …`: look into a feature store, check it, copy it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from pcmci.commands.options import (
    AsJson,
    StorePath,
)
from pcmci.commands.showing import print_json, progress_bar, size
from pcmci.plain import plain

store_app = typer.Typer(no_args_is_help=True, help="Look into a feature store, check it, copy it.")


@store_app.command("info")
def store_info(path: StorePath, as_json: AsJson = False) -> None:
    """What a store holds, how much of it is done, and where it came from.

    Example: pcmci store info features/coin.zarr
    """
    from pcmci.cache.store import open_store

    with open_store(path) as store:
        info = store.describe()
    if as_json:
        print_json(info)
        return
    for name, value in info.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, detail in value.items():
                print(f"  {plain(inner)}: {plain(detail)}")
        else:
            print(f"{name}: {plain(value)}")


@store_app.command("verify")
def store_verify(path: StorePath, as_json: AsJson = False) -> None:
    """Read every chunk and name the videos that are hurt; leaves with 1 if any is.

    Example: pcmci store verify features/coin.zarr
    """
    from pcmci.cache.upkeep.verify import verify

    with progress_bar("verify", "chunk", as_json) as advance:
        found = verify(path, advance)
    hurt = [damage for damage in found if not damage.harmless]
    if as_json:
        print_json({"store": str(path), "damage": [dataclasses.asdict(d) for d in found]})
    else:
        for damage in found:
            print(f"{'note' if damage.harmless else 'damaged'}: {plain(damage)}")
        print(f"{path}: {'every chunk is as it was written' if not hurt else 'DAMAGED'}")
    if hurt:
        raise typer.Exit(1)


@store_app.command("failures")
def store_failures(path: StorePath, as_json: AsJson = False) -> None:
    """Every video without features, with its reason, and every one with replaced frames.

    Example: pcmci store failures features/coin.zarr --json
    """
    from pcmci.cache.schema import Status
    from pcmci.cache.store import open_store

    with open_store(path) as store:
        rows = store.listed(Status.FAILED, Status.MISSING)
        damaged = store.listed(Status.DONE, replaced=True)
    if as_json:
        found = {"store": str(path), "failures": rows}
        print_json({**found, "replaced": damaged} if damaged else found)
        return
    for row in (*rows, *damaged):
        print("\t".join(plain(row[name]) for name in ("status", "split", "video", "reason")))
    print(f"videos without features: {len(rows)}", file=sys.stderr)
    if damaged:
        print(f"videos with replaced frames: {len(damaged)}", file=sys.stderr)


@store_app.command("stats")
def store_stats(
    path: StorePath,
    above: Annotated[
        float, typer.Option(help="List pairs that are alike by as much, of at most 1.", max=1)
    ] = 0.98,
    top: Annotated[int, typer.Option(help="Pairs to list, the most alike first.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """What the features are like, and which videos of other splits are in train too.

    A pair's likeness is the lower of two cosines, one an encoder. Reads all features once.

    Example: pcmci store stats features/coin.zarr --above 0.95 --top 50
    """
    from tqdm.dask import TqdmCallback

    from pcmci.cache.store import open_store
    from pcmci.cache.upkeep.stats import store_stats as stats_of
    from pcmci.report.store import compared_table, features_table, hints, pairs_table
    from pcmci.report.table import show

    silent = True if as_json else None  # None: where nobody looks at a terminal
    with (
        open_store(path) as store,
        TqdmCallback(desc="stats", unit="task", disable=silent, leave=False),
    ):
        found = dataclasses.asdict(stats_of(store, above))
    copies = found["copies"]
    pairs = copies["pairs"]
    copies["pairs"] = pairs[:top]
    if as_json:
        print_json({"store": str(path), **found})
        return
    show(features_table(found["features"], str(path)))
    for line in hints(found["features"]):
        print(plain(line))
    if copies["missing"]:
        print(copies["missing"])
        return
    show(compared_table(copies["compared"], above))
    if pairs[:top]:
        show(pairs_table(pairs[:top], above))
    if len(pairs) > top:
        print(f"{len(pairs) - top} pairs more: --top {len(pairs)}")


@store_app.command("convert")
def store_convert(
    source: StorePath,
    target: Annotated[
        str, typer.Argument(help="The new store, .zarr or .h5, or s3://….zarr.", metavar="PATH")
    ],
) -> None:
    """Copy a store into the other format, or to or from a bucket, equal to the last bit.

    Example: pcmci store convert features/coin.zarr features/coin.h5

    Example: pcmci store convert features/coin.zarr s3://bucket/coin.zarr
    """
    from pcmci.cache.upkeep.convert import convert

    with progress_bar("convert", "chunk", False) as advance:
        convert(source, target, advance)
    print(target)


@store_app.command("export")
def store_export(
    path: StorePath,
    folder: Annotated[Path, typer.Argument(help="Where the files go; it must be empty.")],
    array: Annotated[str, typer.Option(help="video or vlm.")] = "video",
    form: Annotated[str, typer.Option("--format", help="npy, npz or h5.")] = "npy",
    layout: Annotated[
        str, typer.Option(help="TD where time comes first, DT where the features do.")
    ] = "TD",
) -> None:
    """Features as files for other programs, one a video; pcmci import reads them back.

    Example: pcmci store export features/coin.zarr coin_timesformer --array video
    """
    from pcmci.cache.store import open_store
    from pcmci.cache.upkeep.export import export

    with open_store(path) as store, progress_bar("export", "video", False) as advance:
        count = export(store, folder, array, form, layout, advance)
    print(f"{folder}: {count} videos; the label prompts: {folder}.text.npz")


@store_app.command("clean")
def store_clean(
    path: StorePath,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the transport plans beside a store that no run can use any more.

    Those are of a content that the store no longer has, damaged, or left half solved by a process
    that was killed. A training may go on beside it; what it needs is kept.

    Example: pcmci store clean features/coin.zarr --dry-run
    """
    from pcmci.cache.nearby import nearby
    from pcmci.cache.store import open_store
    from pcmci.heads.training.plans import list_plans, remove

    with open_store(path) as store, progress_bar("plans", "plan", as_json) as advance:
        folder = nearby(store.path, ".plans")
        plans = list_plans(store, advance)
    unusable = [plan for plan in plans if plan.why]
    gone = unusable if dry_run else list(remove(unusable))
    kept = [plan for plan in plans if plan not in gone]
    freed = sum(plan.bytes for plan in gone)
    if as_json:
        facts = {"folder": str(folder), "dry run": dry_run, "bytes": freed}
        print_json(
            facts
            | {
                name: [
                    dataclasses.asdict(plan) | {"paths": list(map(str, plan.paths))}
                    for plan in some
                ]
                for name, some in (("deleted", gone), ("kept", kept))
            }
        )
        return
    for plan in plans:
        did = ("would be deleted" if dry_run else "deleted") if plan in gone else "kept"
        about = f" ({plain(plan.about)})" if plan.about else ""
        said = plan.why or plan.note or "runs can use it"
        name = plan.paths[0].name if len(plan.paths) == 1 else plan.paths[0].stem
        print(f"{did}: {plain(name)}, {size(plan.bytes)}{about}: {plain(said)}")
    verb = "to be deleted" if dry_run else "deleted"
    print(f"{plain(folder)}: {len(gone)} of {len(plans)} plans {verb}, {size(freed)}")
