"""`pcmci train-heads`: a store to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pcmci.commands.options import (
    AsJson,
    Device,
    Features,
    Labels,
    Precision,
    StoreName,
    find_store,
)
from pcmci.commands.showing import print_json, say_coverage, say_undefined, size
from pcmci.flags import with_flags
from pcmci.heads.catalogue import DEFAULT, check_stages, configure, flags
from pcmci.heads.catalogue import settings as run_settings
from pcmci.heads.config import parse_labels, parse_memory


@with_flags(run_settings(), flags())
def train_heads(
    order: Annotated[
        str | None,
        typer.Option(
            help="Stages of the head pcmci in their order, as ich,ici; none for no stage.",
            show_default="ich,ici,ivc",
        ),
    ] = None,
    head: Annotated[str, typer.Option(help="What is trained; pcmci heads lists them.")] = DEFAULT,
    dataset: StoreName = None,
    features: Features = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    device: Device = "auto",
    precision: Precision = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            help="For features, as 2G; a larger store is streamed.", show_default="what is free"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train again what is there already.")
    ] = False,
    as_json: AsJson = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train a head from a store, score it, and write a run folder.

    Example: pcmci train-heads --dataset coin --order ich,ici --labels activity --seed 1

    Example: pcmci train-heads --dataset coin --head mlp --hidden 1024

    Example: pcmci train-heads --dataset coin --head experts --experts-of v,vc,p,pc,ich
    """
    stages = check_stages(head, order)
    asked = parse_labels(labels) if labels else None
    bytes_ = parse_memory(memory) if memory else None
    configure(stages, asked or (), settings, head)  # refuse bad values before anything is opened
    from pcmci.cache.store import open_store
    from pcmci.heads.training.run import train_heads as run_train

    with open_store(find_store(dataset, features)) as store:
        say_coverage(store)
        run = run_train(
            store, order, head=head, labels=asked, out=out, device=device, precision=precision,
            memory=bytes_, overwrite=overwrite, progress=not as_json, **settings,
        )  # fmt: skip
        effects = run.effects_on(store)
    if as_json:
        facts = {"run": str(run.path), "bytes": run.bytes, "reused": run.reused}
        print_json({**facts, **_run_facts(run), **({"effects": effects} if effects else {})})
    else:
        _show_run(run, effects)


def _run_facts(run: Any) -> dict[str, Any]:
    kept = ("loss", "looks")
    heads = {
        labels: {name: value for name, value in facts.items() if name not in kept}
        for labels, facts in run.heads.items()
    }
    from pcmci.heads.scoring.scores import undefined
    from pcmci.report.table import headline_scores

    reasons = undefined(run.metrics, headline_scores(run.metrics))
    return {"scores": run.metrics, "undefined": reasons, "heads": heads}


def _show_run(run: Any, effects: dict[str, Any]) -> None:
    from pcmci.report.effects import HOW_TO_READ, effects_table
    from pcmci.report.encoders import spec_notes
    from pcmci.report.table import heads_table, score_table, show
    from pcmci.report.voices import voices_table

    data = run.config["store"]["spec"]["dataset"]
    seed = run.config["train"]["seed"]
    notes = spec_notes(run.config["store"]["spec"])
    show(score_table(run.metrics, f"{data}, {run.described}, seed {seed} (percent)", notes))
    say_undefined(run.metrics)
    show(heads_table(run.heads))
    for labels, facts in run.heads.items():
        if "voices" in facts:
            show(voices_table(labels, facts, run.metrics))
    for labels, report in effects.items():
        show(effects_table({run.described: report}, labels))
    if effects:
        print(HOW_TO_READ)
    print(f"{'already there: ' if run.reused else ''}{run.path} ({size(run.bytes)})")
