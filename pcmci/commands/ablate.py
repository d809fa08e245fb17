"""`pcmci ablate`: many runs, their tables and a page."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcmci.commands.options import (
    AsJson,
    Device,
    Features,
    Labels,
    Precision,
    Scheduler,
    StoreName,
    find_store,
    was_given,
)
from pcmci.commands.showing import duration, print_json, say_coverage, show_worker
from pcmci.flags import with_flags
from pcmci.heads.ablation.grid import parse_grid, parse_orders, parse_seeds
from pcmci.heads.config import configure, parse_labels, parse_memory, parse_order, parse_taus
from pcmci.heads.config import settings as run_settings


@with_flags({name: entry for name, entry in run_settings().items() if name != "seed"})
def ablate(
    context: typer.Context,
    orders: Annotated[
        str, typer.Option(help='all (16), paper (11), or some: "none; ich,ici; ici,ich".')
    ] = "all",
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
        typer.Option(help="The order that others are compared with.", show_default="none"),
    ] = None,
    dataset: StoreName = None,
    features: Features = None,
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
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train many runs from one store, orders x seeds x a grid, and make tables and a page of them.

    What is there already is not trained again, be it from train-heads or from another sweep. On a
    Dask cluster (--scheduler) store and --out have to lie where its workers see them.

    Example: pcmci ablate --dataset coin --orders all --seeds 5 --validation 0.1 --grid lr=1e-3,3e-3
    """
    chosen = {n: value for n, value in settings.items() if was_given(context, n)}
    stages, which, taus = parse_orders(orders), parse_seeds(seeds), parse_taus(tau)
    values = parse_grid(grid or [])
    compared = None if reference is None else parse_order(reference)
    asked = parse_labels(labels) if labels else None
    bytes_ = parse_memory(memory) if memory else None
    configure((), asked or (), chosen)  # refuse bad values before anything is opened
    from pcmci.cache.store import open_store
    from pcmci.heads.ablation.ablate import Ablator, trainers_of

    with (
        open_store(find_store(dataset, features)) as store,
        trainers_of(scheduler, workers, store, out, device, not as_json) as trainers,
    ):
        say_coverage(store)
        ablator = Ablator(
            store, stages, which, values, asked, compared, out, device, precision, bytes_,
            workers, stack, retry_failed, not as_json, chosen, trainers,
        )  # fmt: skip
        if dry_run:
            _show_preview(ablator.preview(), as_json)
            return
        command = shlex.join(["pcmci", *sys.argv[1:]])
        found = ablator.run(taus, results, resamples, command)
    workers_did = trainers.workers if trainers is not None else {}
    from pcmci.report.ablation import write_report
    from pcmci.report.table import ablation_table, show

    page = write_report(found.path)
    if as_json:
        print_json(
            {
                "results": str(found.path), "page": str(page), "done": found.done,
                "trained": found.trained, "failed": found.failures, "summary": found.summary,
                "workers": {name: dataclasses.asdict(one) for name, one in workers_did.items()},
            }
        )  # fmt: skip
    else:
        tables = [
            ablation_table(found.summary, score, "test")
            for score in dict.fromkeys(row["score"] for row in found.summary)
        ]
        show(*(table for table in tables if table is not None))
        print(
            f"{found.done} runs ({found.done - found.trained} of them were there)\n"
            f"rows: {found.path / 'results.parquet'}\npage: {page}"
        )
        for name, one in sorted(workers_did.items()):
            show_worker(name, f"{one.runs} runs", one)
        for run, reason in found.failures.items():
            print(f"failed: {run}: {reason}", file=sys.stderr)
    if found.failures:
        raise typer.Exit(1)


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
