"""`pcmci ablate`: many runs, their tables and a page."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcmci.cluster.patience import WAIT_MINUTES
from pcmci.commands.options import (
    AsJson,
    Device,
    Labels,
    Precision,
    Scheduler,
    SeveralFeatures,
    StoreName,
    WaitWorkers,
    find_stores,
)
from pcmci.commands.showing import duration, print_json, say_coverage, show_worker, size
from pcmci.flags import with_flags
from pcmci.heads.ablation.grid import parse_grid, parse_models, parse_seeds
from pcmci.heads.catalogue import DEFAULT, HEADS, check_owned, configure, flags, owners
from pcmci.heads.catalogue import settings as run_settings
from pcmci.heads.config import parse_labels, parse_memory, parse_order, parse_taus
from pcmci.plain import plain


@with_flags({name: entry for name, entry in run_settings().items() if name != "seed"}, flags())
def ablate(
    orders: Annotated[
        str | None,
        typer.Option(
            help='Of the head pcmci: all (16), paper (11), or some: "none; ich,ici; ici,ich".',
            show_default="all; none alone where --heads has none and not pcmci",
        ),
    ] = None,
    heads: Annotated[
        str,
        typer.Option(help="all, or some of pcmci heads, as pcmci,mlp; none is pcmci's order none."),
    ] = DEFAULT,
    seeds: Annotated[str, typer.Option(help="How many, or which: 3,7.")] = "5",
    tau: Annotated[
        str, typer.Option(help="Thresholds of ODD: 0.6, 0.3,0.6 or FIRST:LAST:STEP.")
    ] = "0.3:0.9:0.05",
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="SETTING=VALUE,VALUE; may be repeated. Settings of training (lr) are tried for "
            "every order and chosen on validation, settings of the model (relations, "
            "transport.lambda) make rows of their own.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The order or head that others are compared with.", show_default="none"),
    ] = None,
    dataset: StoreName = None,
    features: SeveralFeatures = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            help="With --dataset: the stores of these video encoders, as timesformer,x3d-m.",
            show_default=False,
        ),
    ] = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Where run folders go, and are found.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Where tables and page go.")] = Path("ablations"),
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that train.", show_default="a core each; 1 on a GPU", min=1),
    ] = None,
    stack: Annotated[
        int | None,
        typer.Option(
            help="Runs that are trained together as one model.",
            show_default="what a GPU's memory holds; 1 on a CPU",
            min=1,
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Of the bootstrap of differences; 0 for none.", min=0)
    ] = 1000,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that diverged before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and how long it takes.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            help="For features, of all workers, as 2G; with --scheduler of each.",
            show_default="half of what is free",
        ),
    ] = None,
    scheduler: Scheduler = None,
    wait_workers: WaitWorkers = WAIT_MINUTES,
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train many runs, heads and orders x seeds x a grid, and make tables and a page of them.

    Several stores over the same videos (--features twice, or --encoders) are rows of one table.
    What is there already is not trained again, be it from train-heads or from another sweep. On a
    Dask cluster (--scheduler) store and --out have to lie where its workers see them.

    Example: pcmci ablate --dataset coin --orders all --seeds 5 --validation 0.1 --grid lr=1e-3,3e-3

    Example: pcmci ablate --dataset coin --heads pcmci,mlp --orders "none; ich,ici,ivc"

    Example: pcmci ablate --features a.zarr --features b.zarr --orders ich,ici,ivc
    """
    which, taus = parse_seeds(seeds), parse_taus(tau)
    models = parse_models(heads, orders)
    chosen_heads = tuple(dict.fromkeys(head for head, _ in models))
    values = parse_grid(grid or [])
    if reference is not None and reference.strip().lower() not in HEADS:
        parse_order(reference)
    asked = parse_labels(labels) if labels else None
    bytes_ = parse_memory(memory) if memory else None
    check_owned(settings, chosen_heads)
    for head in chosen_heads:  # refuse bad values before anything is opened
        mine = {n: value for n, value in settings.items() if head in (owners(n) or (head,))}
        configure((), asked or (), mine, head)
    from pcmci.cache.store import open_store
    from pcmci.heads.ablation.ablate import Ablator, trainers_of

    with contextlib.ExitStack() as opening:
        stores = [
            opening.enter_context(open_store(path))
            for path in find_stores(dataset, features, encoders)
        ]
        trainers = opening.enter_context(
            trainers_of(scheduler, workers, stores, out, device, not as_json, wait_workers)
        )
        for store in stores:
            say_coverage(store, named=len(stores) > 1)
        ablator = Ablator(
            stores, orders, which, values, asked, reference, out, device, precision, bytes_,
            workers, stack, retry_failed, not as_json, settings, trainers, heads,
        )  # fmt: skip
        if dry_run:
            _show_preview(ablator.preview(), as_json)
            return
        command = shlex.join(["pcmci", *sys.argv[1:]])
        costs = {str(store.path): _cost(store) for store in stores}
        found = ablator.run(taus, results, resamples, command, costs)
    workers_did = {name: one for each in trainers or () for name, one in each.workers.items()}
    from pcmci.report.ablation import write_report
    from pcmci.report.effects import HOW_TO_READ, REMOVES, effects_table, of_rows
    from pcmci.report.table import ablation_table, no_interval_line, show, undefined_line

    page = write_report(found.path)
    if as_json:
        print_json(
            {
                "results": str(found.path), "page": str(page), "done": found.done,
                "trained": found.trained, "failed": found.failures, "summary": found.summary,
                **({"effects": found.effects} if found.effects else {}),
                "workers": {name: dataclasses.asdict(one) for name, one in workers_did.items()},
            }
        )  # fmt: skip
    else:
        tables = [
            ablation_table(found.summary, score, "test")
            for score in dict.fromkeys(row["score"] for row in found.summary)
        ]
        show(*(table for table in tables if table is not None))
        for score in dict.fromkeys(row["score"] for row in found.summary):
            if line := undefined_line(found.summary, score, "test"):
                print(line)
        if line := no_interval_line(found.summary, "test"):
            print(line)
        by_labels = of_rows(found.effects)
        show(*(effects_table(rows, labels) for labels, rows in by_labels.items()))
        if by_labels:
            print(f"{HOW_TO_READ}\n{REMOVES}")
        total = sum(row.get("bytes") or 0 for row in found.rows)
        there = found.done - found.trained
        print(
            f"{found.done} runs ({there} of them were there), {size(total)} in {out}\n"
            f"rows: {found.path / 'results.parquet'}\npage: {page}"
        )
        for name, one in sorted(workers_did.items()):
            show_worker(name, f"{one.runs} runs", one)
        for run, reason in found.failures.items():
            print(f"failed: {plain(run)}: {plain(reason)}", file=sys.stderr)
    if found.failures:
        raise typer.Exit(1)


def _cost(store: Any) -> dict[str, Any]:
    """Of a store's video encoder: GFLOPs of a video, and how fast it was extracted here; None where
    that is not known."""
    from pcmci.extract.encoders.cards import card_of
    from pcmci.extract.speed import recorded, videos_a_second

    spec = store.spec
    card = card_of("video", spec.video.name)
    runs = recorded(store.path)
    # a card says what a frame costs, and in dense windows each of them is a whole clip
    seen = 1 if card is None or not spec.video.stride else card.clip_frames
    return {
        "parameters": spec.video.parameters,
        "gflops": None if card is None else card.gflops * spec.sampling.frames * seen,
        "videos a second": videos_a_second(store.path),
        "measured on": runs[-1]["how"] if runs else "",
    }


def _show_preview(preview: Any, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(preview))
        return
    todo = preview.runs - preview.there - preview.failed
    failed = f", {preview.failed} diverged before" if preview.failed else ""
    print(f"{preview.runs} runs: {preview.there} are there{failed}, {todo} to train")
    if preview.seconds is not None:
        stacked = f" in stacks of at most {preview.stack}" if preview.stack > 1 else ""
        print(
            f"about {duration(preview.seconds)} with {preview.workers} workers{stacked}, by a few "
            "steps of each order timed here"
        )
