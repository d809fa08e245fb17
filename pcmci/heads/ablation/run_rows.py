"""The table `results`: a row a run, with everything that is known of it."""

from __future__ import annotations

from collections.abc import Mapping

from pcmci.heads.ablation.outcomes import Outcome, Row, labels_seen
from pcmci.heads.ablation.sweep import Settings, Trial, Variant
from pcmci.heads.catalogue import head_settings, train_settings
from pcmci.heads.config import STAGES
from pcmci.heads.scoring.scores import Scores
from pcmci.plain import plain

MACHINE = ("device", "precision", "threads", "stack", "torch", "pcmci", "commit")


def run_row(
    outcome: Outcome,
    scores: Mapping[str, Scores],
    chosen: Mapping[str, Mapping[Variant, Settings]],
    labels: tuple[str, ...],
) -> Row:
    trial, run = outcome.trial, outcome.run
    order = trial.variant.order
    row: Row = {
        "variant": trial.variant.name,
        "head": trial.variant.head,
        "order": trial.variant.order_name,
        **{stage: order.index(stage) + 1 if stage in order else None for stage in STAGES},
        "seed": trial.seed,
        "tried": trial.tried_name,
        "status": "done" if run else "failed",
        "reason": outcome.reason,
        "failed step": outcome.step,
        **{f"chosen for {name}": chosen[name][trial.variant] == trial.tried for name in labels},
        "labels": ",".join(labels),
        "labels seen": labels_seen([outcome]),
        **_settings(trial),
    }
    for split, values in scores.items():
        row |= {f"{split}/{name}": value for name, value in values.items()}
    if run is None:
        return row
    for name, facts in run.heads.items():
        best = facts["best-on-test"]
        row |= {
            f"{name}/{key}": facts[key]
            for key in (
                "trained parameters",
                "trained share",
                "training videos",
                "features",
                "chosen epoch",
                "chosen by",
            )
        }
        row[f"{name}/best-on-test"] = best["value"] if best else None
        row[f"{name}/seconds"] = facts["seconds"]
    machine, store = run.config["machine"], run.config["store"]
    row["seconds"] = sum(facts["seconds"] for facts in run.heads.values())
    row |= {name: machine.get(name) for name in MACHINE}
    row |= {
        "run": str(run.path),
        "bytes": run.bytes,
        "key": run.config["key"],
        "created": run.config["created"],
        "store": plain(store["path"]),
        "fingerprint": store["fingerprint"],
        "content_digest": store["content_digest"],
    }
    return row


def _settings(trial: Trial) -> Row:
    """By name: of the training, and of the head as it calls them."""
    recipe = trial.recipe
    values = {}
    transport = getattr(recipe.model, "transport", None)
    holders = {type(x): x for x in (recipe.model, recipe.train, transport)}
    for name, (config, entry) in (head_settings(recipe.head) | train_settings()).items():
        values[name] = getattr(holders[config], entry.name)
    return {name: value for name, value in values.items() if name != "seed"}
