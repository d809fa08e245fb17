"""What a sweep found, as tables of plain rows: all that a report needs.

`results`: a row a run. `summary`: a row a variant, score and split, over seeds. `effects`: likewise
a row a variant, label set and split of twins, where there are such. And of the chosen
runs, on the test split: `densities` (ODD over tau), `classes` (average precision), `pairs`
(implausible ones), `reliability`, `epochs` (training losses), `voices` and `disagreements` (of
heads that have several opinions; on every split). The co-prediction matrices are arrays.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pcmci.heads.ablation.details import details
from pcmci.heads.ablation.effects import effects
from pcmci.heads.ablation.outcomes import Outcome, Row, by_seed, choose
from pcmci.heads.ablation.run_rows import run_row
from pcmci.heads.ablation.summary import summary
from pcmci.heads.ablation.sweep import Sweep
from pcmci.heads.scoring.metrics import TAU as HEADLINE_TAU
from pcmci.heads.scoring.scores import Scores, score
from pcmci.plain import plain_json


@dataclass(frozen=True)
class Results:
    """tables: name -> rows. matrices: `names`, `truth`, `train` and `q/<variant>`, the
    co-prediction [N, N]; empty without steps."""

    tables: dict[str, list[Row]]
    matrices: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """`<table>.parquet` each, `results.csv`, and `coprediction.npz`; none of an earlier sweep
        stays."""
        for old in folder.glob("*.parquet"):
            old.unlink()
        for name, rows in self.tables.items():
            table = pa.Table.from_pylist(_even(rows))
            pa.parquet.write_table(table, folder / f"{name}.parquet")
            if name == "results":
                pa.csv.write_csv(table, folder / "results.csv")
        np.savez_compressed(folder / "coprediction.npz", **self.matrices)  # type: ignore[arg-type]


def collect(
    sweep: Sweep,
    outcomes: Sequence[Outcome],
    taus: Sequence[float],
    *,
    resamples: int,
    progress: bool,
    dataset: str,
    same: Mapping[str, Collection[str]] | None = None,
) -> Results:
    """Rows of everything. outcomes: one a trial, in the sweep's order. resamples: of the bootstrap
    of differences. dataset: its name, which says what the paper reports. same: of each store the
    twins in which nothing differs, see `effects`."""
    scores = {id(outcome): _scores(outcome, taus) for outcome in outcomes}
    chosen = {labels: choose(sweep, outcomes, labels) for labels in sweep.labels}
    kept = {
        labels: {
            variant: by_seed(sweep, outcomes, variant, choice)
            for variant, choice in choices.items()
        }
        for labels, choices in chosen.items()
    }
    more, matrices = details(kept, scores, taus, sweep.reference)
    tables = {
        "results": [
            run_row(outcome, scores[id(outcome)], chosen, sweep.labels) for outcome in outcomes
        ],
        "summary": list(summary(sweep, kept, chosen, scores, resamples, progress, dataset)),
        "effects": list(effects(sweep, kept, same or {}, resamples)),
        **more,
    }
    return Results({name: rows for name, rows in tables.items() if rows}, matrices)


def _scores(outcome: Outcome, taus: Sequence[float]) -> dict[str, Scores]:
    run = outcome.run
    return score(run.predictions, sorted({*taus, HEADLINE_TAU})) if run else {}


def _even(rows: list[Row]) -> list[Row]:
    """Every row with all columns, in the order in which they came up."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """`sweep.json`: where the rows came from."""
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=_plain)
    (folder / "sweep.json").write_text(plain_json(text) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
