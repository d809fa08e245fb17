"""`pcmci evaluate`: a run's predictions scored again."""

from __future__ import annotations

from typing import Annotated

import typer

from pcmci.commands.options import (
    AsJson,
    RunPath,
)
from pcmci.commands.showing import print_json, say_undefined
from pcmci.heads.config import parse_taus


def evaluate(
    run: RunPath,
    tau: Annotated[
        str, typer.Option(help="Thresholds of ODD: 0.6, 0.3,0.6 or FIRST:LAST:STEP.")
    ] = "0.3:0.9:0.1",
    as_json: AsJson = False,
) -> None:
    """Score a run's saved predictions again; nothing is trained.

    Example: pcmci evaluate runs/coin_steps_ich_seed0_1a2b3c4d --tau 0.3:0.9:0.05
    """
    taus = parse_taus(tau)
    from pcmci.heads.scoring.scores import score, undefined
    from pcmci.heads.training.run import load_run
    from pcmci.report.encoders import spec_notes
    from pcmci.report.table import headline_scores, score_table, show, tau_table

    loaded = load_run(run)
    predictions = loaded.predictions
    scores = score(predictions, taus)
    if as_json:
        reasons = undefined(scores, headline_scores(scores))
        print_json({"run": str(run), "scores": scores, "undefined": reasons})
        return
    headline = score(predictions)
    show(score_table(headline, str(run), spec_notes(loaded.config["store"]["spec"])))
    say_undefined(headline)
    if "steps" in predictions.labels:
        named = [f"{value:.4g}" for value in taus]
        show(*(tau_table(values, named, split) for split, values in scores.items()))
