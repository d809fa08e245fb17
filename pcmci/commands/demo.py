"""`pcmci demo`: both phases on the kitchen world."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pcmci.commands.options import (
    AsJson,
    beside_decoding,
)
from pcmci.commands.showing import print_json


def demo(
    out: Annotated[Path, typer.Option(help="Where videos, features and runs go.")] = Path("demo"),
    videos: Annotated[
        int | None,
        typer.Option(
            help="Training videos to draw.", min=30, show_default="400, or those that are there"
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.", min=1)] = 30,
    full: Annotated[
        bool,
        typer.Option("--full", help="Train ich and ich,ici too, between none and all stages."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Both phases on the kitchen world, a small world drawn by the program: no download.

    Some two minutes on two cores. What is there is not done again: --full, and the command that
    it ends with, go on with what the demo made.

    Example: pcmci demo --out demo
    """
    beside_decoding()
    from pcmci.demo import demo as run_demo
    from pcmci.demo import next_command
    from pcmci.report.table import orders_table, show

    found = run_demo(
        out, videos=videos, epochs=epochs, full=full, program=sys.argv[0], progress=not as_json
    )
    scores = {order: run.metrics for order, run in found.runs.items()}
    if as_json:
        print_json(
            {
                "page": str(found.page),
                "runs": {order: str(run.path) for order, run in found.runs.items()},
                "scores": scores,
                "against_none": {
                    name: {
                        order: {split: dataclasses.asdict(i) for split, i in by_split.items()}
                        for order, by_split in by_order.items()
                    }
                    for name, by_order in found.against_none.items()
                },
            }
        )
        return
    again = [sys.argv[0], "demo", "--out", str(out), "--epochs", str(epochs), "--full"]
    between = "" if full else f"the orders between: {shlex.join(again)}\n"
    show(*(orders_table(scores, name, against) for name, against in found.against_none.items()))
    print(
        "Under a score: its difference to no stage with the 95 % interval over test videos; with "
        "one seed it ranks no orders.\n"
        "In the splits shift-… one link between a confounder and the activity is broken, or all "
        "three; in cause another activity is done, and what comes with it is still the old one's.\n"
        f"The study with all orders: docs/evidence.md\npage: {found.page}\n"
        f"{between}next: {next_command(out, epochs, sys.argv[0])}"
    )
