"""From runs to rows: effects, scores and comparisons, in one Parquet that the page is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from evidence.cells import CELLS
from evidence.expected import Expectation, holm, p_value, read_expectations, verdict
from evidence.heads import HEADS, NONE, UNIFORM
from evidence.runs import Job, path_of, world_seed
from evidence.world import SPLITS, World, make_world
from pcmci.heads.catalogue import DEFAULT
from pcmci.heads.config import ModelConfig, TransportConfig
from pcmci.heads.method.transport import alignment
from pcmci.heads.scoring.bootstrap import Interval
from pcmci.heads.scoring.effects import (
    direct_effect,
    effect_difference,
    removal,
    shortcut_ratio,
)
from pcmci.heads.scoring.metrics import class_average_precision

ROWS = Path(__file__).with_name("rows.parquet")
SCORED = ("test", "shift", "wrong")
CHOICES = ("val", "oracle")
"""Who chose the epoch."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """kind: `run` (one seed: scores, effects without intervals), `effect` (all seeds of a head),
    `difference` (a head against a control), or `gain` (what of a companion passes S~, before any
    training). chosen: who chose the epoch. measure: what `value` is, with the ends of its 95 %
    interval; scores as fractions, effects in logits. p, adjusted: of a comparison that was
    expected, before and after Holm. removes, expects: see `expected.md`."""

    kind: str
    cell: str
    confounder: str
    pre: float
    eta: float
    rho: float
    labels: str
    head: str
    measure: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    control: str | None = None
    chosen: str | None = None
    seed: int | None = None
    lowers: bool | None = None
    keeps: bool | None = None
    removes: bool | None = None
    sign: str | None = None
    expects: bool | None = None
    proof: str | None = None
    p: float | None = None
    adjusted: float | None = None
    verdict: str | None = None


_TYPES = {"str": pa.string(), "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
SCHEMA = pa.schema([(f.name, _TYPES[str(f.type).split(" |")[0]]) for f in fields(Row)])


def write_rows(rows: Sequence[Row], path: Path = ROWS, about: Mapping[str, str] = {}) -> Path:
    """Whole or not at all. about: where they come from, kept as the file's metadata."""
    table = pa.Table.from_pylist([vars(row) for row in rows], SCHEMA)
    partial = path.with_suffix(".partial")
    pq.write_table(table.replace_schema_metadata(dict(about)), partial, compression="zstd")
    return partial.replace(path)


def read_rows(path: Path = ROWS) -> tuple[list[Row], dict[str, str]]:
    """The rows, and where they come from."""
    table = pq.read_table(path)
    about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return [Row(**row) for row in table.to_pylist()], about


class _Heard:
    """What the seeds of one head said in one cell, and its effects."""

    def __init__(self, path: Path, job: Job, chosen: str, world: World) -> None:
        cell, head = job
        with np.load(path, allow_pickle=False) as file:
            kept = dict(file)
        prefix = {"val": "logits", "oracle": "oracle"}[chosen]
        # a product of experts has as many times the logits of one head
        config = HEADS[head].config()
        scale = 1 if HEADS[head].head == DEFAULT else len(config.names)  # type: ignore[attr-defined]
        self.logits = {split: kept[f"{prefix}/{split}"] / scale for split in SPLITS}
        self.targets = {s: getattr(world.parts[s], CELLS[cell].labels) for s in SPLITS}
        self.epochs = kept[{"val": "epochs", "oracle": "oracle_epochs"}[chosen]].tolist()
        self.parameters, self.seconds = int(kept["parameters"]), float(kept["seconds"])
        self.cde, self.cde_wrong, self.cause = (
            direct_effect(self.logits["custom"], self.logits[twin], self.targets["custom"],
                          resamples=RESAMPLES)
            for twin in ("other", "wrong", "causal")
        )  # fmt: skip

    def score(self, split: str) -> list[float]:
        """Acc or mAP of every seed."""
        target = self.targets[split]
        if target.ndim == 1:
            return (self.logits[split].argmax(-1) == target).mean(1).tolist()
        return [float(np.nanmean(class_average_precision(z, target))) for z in self.logits[split]]


def measure(out: Path, wanted: Sequence[Job], budget: object) -> list[Row]:
    """All rows of the runs that are there."""
    there = {job: path for job in wanted if (path := path_of(out, job, budget)).exists()}
    rows: list[Row] = []
    expectations = read_expectations()
    for cell in dict.fromkeys(cell for cell, _ in there):
        world = make_world(CELLS[cell].knobs, world_seed(CELLS[cell]))
        heads = [head for at, head in there if at == cell]
        rows += _gains(cell, world)
        for chosen in CHOICES:
            heard = {h: _Heard(there[cell, h], (cell, h), chosen, world) for h in heads}
            for head, one in heard.items():
                rows += _of_head(cell, head, chosen, one)
            rows += _comparisons(cell, chosen, heard, expectations)
    return _judged(rows)


def _at(cell: str) -> dict[str, Any]:
    knobs = CELLS[cell].knobs
    return {
        "cell": cell, "confounder": knobs.confounder, "pre": knobs.eta_pre,
        "eta": knobs.eta_train, "rho": knobs.share, "labels": CELLS[cell].labels,
    }  # fmt: skip


def _ends(found: Interval | None) -> dict[str, float | None]:
    if found is None:
        return {"value": None, "low": None, "high": None}
    low, high = (found.low, found.high) if found.known else (None, None)
    return {"value": found.value, "low": low, "high": high}


def _of_head(cell: str, head: str, chosen: str, heard: _Heard) -> list[Row]:
    at = _at(cell)
    score = "Acc" if at["labels"] == "activity" else "mAP"
    seeds: dict[str, Sequence[float]] = {f"{score} {s}": heard.score(s) for s in SCORED}
    seeds |= {"epoch": heard.epochs}
    for name, effect in (
        ("CDE", heard.cde),
        ("CDE wrong", heard.cde_wrong),
        ("cause", heard.cause),
    ):
        seeds[name] = effect.changes.mean(1).tolist()
    rows = [
        Row("run", **at, head=head, measure=name, value=float(value), chosen=chosen, seed=seed)
        for name, values in seeds.items()
        for seed, value in enumerate(values)
    ]
    if chosen == "val":
        rows.append(Row("run", **at, head=head, measure="parameters", value=heard.parameters))
        rows.append(Row("run", **at, head=head, measure="seconds", value=heard.seconds))
    measured: dict[str, Interval | None] = {
        "CDE": heard.cde.cde, "CDE wrong": heard.cde_wrong.cde, "cause": heard.cause.cde,
        "flips": heard.cde.flips,
        "shortcut ratio": shortcut_ratio(heard.cde, heard.cause, RESAMPLES).value,
    }  # fmt: skip
    rows += [
        Row("effect", **at, head=head, measure=name, chosen=chosen, **_ends(found))
        for name, found in measured.items()
    ]
    return rows


def pairs_in(heads: Iterable[str], expectations: Iterable[Expectation]) -> list[tuple[str, str]]:
    """The comparisons of a cell: of each head with its control, and what is expected there."""
    heads = list(heads)
    found = [(head, HEADS[head].control) for head in heads if head != NONE]
    found += [(one.head, one.control) for one in expectations]
    found += [(head, NONE) for head in ("ivc, cross", "ivc, cross, K = 0")]
    kept = [(h, c) for h, c in found if h in heads and c in heads and h != c]
    return list(dict.fromkeys(kept))


def _comparisons(
    cell: str, chosen: str, heard: Mapping[str, _Heard], expectations: Sequence[Expectation]
) -> list[Row]:
    here = {(e.head, e.control): e for e in expectations if e.cell == cell}
    rows = []
    for head, control in pairs_in(heard, here.values()):
        mine, its = heard[head], heard[control]
        found = removal(mine.cde, its.cde, mine.cause, its.cause, resamples=RESAMPLES)
        expected = here.get((head, control))
        # what is not removed is known as soon as nothing is lowered, or what is done is lost
        rows.append(
            Row(
                "difference", **_at(cell), head=head, control=control, measure="CDE",
                chosen=chosen, **_ends(found.cde), lowers=found.lowers, keeps=found.keeps,
                removes=found.removes,
                sign=expected.sign if expected else None,
                expects=expected.removes if expected else None,
                proof=expected.proof if expected else None,
            )
        )  # fmt: skip
        kept = effect_difference(mine.cause, its.cause, RESAMPLES)
        rows.append(
            Row("difference", **_at(cell), head=head, control=control, measure="cause",
                chosen=chosen, **_ends(kept))
        )  # fmt: skip
    return rows


def _judged(rows: list[Row]) -> list[Row]:
    """With p, Holm's p in the family of one confounder, and the verdict, where a sign was
    expected."""
    found = list(rows)
    for chosen in CHOICES:
        for confounder in dict.fromkeys(row.confounder for row in rows):
            places = [
                i
                for i, row in enumerate(rows)
                if row.sign and row.chosen == chosen and row.confounder == confounder
            ]
            each = [Interval(rows[i].value, rows[i].low, rows[i].high) for i in places]  # type: ignore[arg-type]
            p = [p_value(one) for one in each]
            for i, one, its, adjusted in zip(places, each, p, holm(p), strict=True):
                said = verdict(rows[i].sign or "", one, float(adjusted))
                new = vars(rows[i]) | {"p": its, "adjusted": float(adjusted), "verdict": said}
                found[i] = Row(**new)
    return found


def gain(world: World, transport: TransportConfig, there: np.ndarray) -> float:
    """The mean over videos of the weight that S~ of the label gives to the frames with a companion:
    what of it passes ICH. there: [n, L]. Nothing is trained."""
    part = world.parts["custom"]
    frames = torch.from_numpy(part.vlm.astype(np.float16))
    text = torch.from_numpy(world.activity_text)[None]
    weights = alignment(text, frames, transport, exact=True)[0].numpy()
    own = weights[np.arange(len(weights)), part.activity]
    return float((own * there).sum(1).mean())


def _gains(cell: str, world: World) -> list[Row]:
    knobs = CELLS[cell].knobs
    if knobs.confounder != "h" or CELLS[cell].labels != "activity":
        return []
    # twins differ in nothing but the companion: where they differ, it stands
    there = (world.parts["custom"].vlm != world.parts["other"].vlm).any(-1)
    settings = {
        "ich": ModelConfig().transport,
        "ich, contrast": TransportConfig(refine="contrast"),
        UNIFORM: TransportConfig(refine="uniform"),
    }
    return [
        Row("gain", **_at(cell), head=head, measure="gain", value=gain(world, transport, there))
        for head, transport in settings.items()
    ]


@cache
def committed() -> tuple[list[Row], dict[str, str]]:
    """The rows of the study as they were committed."""
    return read_rows()
