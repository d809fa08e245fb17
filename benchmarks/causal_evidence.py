"""Are the confounders gone? All orders, seeds, labels and baselines on the kitchen world.

    python benchmarks/causal_evidence.py --out /tmp/evidence            about an hour on 2 cores
    python benchmarks/causal_evidence.py --out /tmp/evidence --quick    minutes, to see it run

1. The world at its own knobs: all 16 orders x seeds on the test and on every shift, with
   differences to the empty order, beside the baselines that a reviewer would ask for.
2. One knob at a time from 0 to 1, the others at 0: does the stage that is meant for a confounder
   help as that confounder grows?

Intervals are 95 %, over sessions and seeds (pcmci/heads/scoring/bootstrap.py). Worlds, stores and
runs are kept under --out: the same command goes on where it was stopped. The tables go into
docs/evidence.md, between its two markers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a run a core: they are many, and small
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from baselines import BASELINES, ZERO_SHOT, as_many_parameters
from tqdm import tqdm
from written import replace_tables

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError
from pcmci.extract.config import ExtractConfig
from pcmci.heads.config import ORDERS, order_name
from pcmci.heads.scoring.bootstrap import SCORES, Bootstrap, Interval, interval
from pcmci.heads.scoring.metrics import coprediction
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import score, sigmoid
from pcmci.kitchen import SHIFTS, Knobs, write_world
from pcmci.kitchen.causal import PARTNERS

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
SCRIPT = "benchmarks/causal_evidence.py"

SETTINGS: dict[str, Any] = {"feedforward": 256}
"""Twice the width of the tiny CLIP, as the default 1,024 is of ViT-B/16's."""

SAME_EYES = "none, the VLM's frames as tokens too"
"""Without stages, but it sees what ich sees: what a stage does beyond letting the VLM in."""

SPLITS = ("test", *SHIFTS)
MEANT_FOR = {"h": "ich", "i": "ici", "c": "ivc"}

Runs = dict[str, list[Predictions]]
"""A setting's name to the predictions of its runs, one a seed."""

Place = tuple[str, float]
"""A knob and its level."""

Order = tuple[str, ...] | None
"""None for another head than the paper's."""

Variant = tuple[Order, dict[str, Any]]
"""An order and the settings that are its own; `head` names another one."""

SWEPT: dict[str, Variant] = {
    **{order_name(order): (order, {}) for order in ((), ("ich",), ("ici",), ("ivc",))},
    "ich,ici,ivc": (("ich", "ici", "ivc"), {}),
    SAME_EYES: ((), {"tokens": "both"}),
}


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int = 600
    val: int = 120
    test: int = 480
    swept_test: int = 240
    swept_seeds: int = 3
    seeds: int = 5
    resamples: int = 1000
    orders: tuple[tuple[str, ...], ...] = ORDERS
    levels: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    epochs: int = 30


QUICK = Size(
    train=60, val=20, test=40, swept_test=20, seeds=2, swept_seeds=1, resamples=100,
    orders=((), ("ich",), ("ich", "ici", "ivc")), levels=(0.0, 1.0), epochs=3,
)  # fmt: skip


# --- worlds and runs ----------------------------------------------------------------------------


def store_of(out: Path, knobs: Knobs, size: Size, workers: int | None = None) -> Path:
    """The features of a world. What is there is not made again; what was made otherwise (with
    other weights of the encoders, say) is refused."""
    from pcmci.extract.datasets import load_dataset
    from pcmci.extract.pipeline import extract

    counts = f"{size.train}_{size.val}_{size.test}"
    world = out / f"h{knobs.h:g}_i{knobs.i:g}_c{knobs.c:g}_{counts}"
    write_world(world, size.train, knobs=knobs, val=size.val, test=size.test, workers=workers)
    store = world.with_suffix(f"{world.suffix}.zarr")
    # the encoders are tiny: in small batches the calls would cost more than the work
    config = ExtractConfig(batch_frames=128)
    extract(load_dataset("kitchen", world / "videos", world), store, config)
    return store


def stores_of(out: Path, knobs: Iterable[Knobs], size: Size) -> dict[Knobs, Path]:
    """The stores of several worlds, one a core."""
    different = list(dict.fromkeys(knobs))
    with pool() as workers:
        made = [workers.submit(store_of, out, chosen, size, 1) for chosen in different]
        return {chosen: store.result() for chosen, store in zip(different, made, strict=True)}


@contextmanager
def pool() -> Iterator[ProcessPoolExecutor]:
    """A process a core; what has not begun when an error comes is not begun."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as workers:
        try:
            yield workers
        finally:
            workers.shutdown(cancel_futures=True)


def train(store: Path, order: Order, seed: int, settings: dict[str, Any]) -> Path:
    """One run, in a process of a pool; returns its folder."""
    from pcmci.heads.training.run import train_heads

    with open_store(store) as opened:
        out = store.parent / "runs"
        return train_heads(opened, order, seed=seed, out=out, progress=False, **settings).path


def train_all(store: Path, variants: Mapping[str, Variant], size: Size) -> Runs:
    """All variants and seeds; a run that is there is not made again."""
    from pcmci.heads.training.run import load_run

    with pool() as workers:
        runs: dict[Future[Path], str] = {}
        for name, (order, own) in variants.items():
            common = SETTINGS if order is not None else {}
            settings = {**common, "epochs": size.epochs, **own}
            for seed in range(size.seeds):
                runs[workers.submit(train, store, order, seed, settings)] = name
        for run in tqdm(as_completed(runs), store.stem, len(runs), unit="run"):
            run.result()  # the first that failed is raised at once
    found: Runs = {name: [] for name in variants}
    for run, name in runs.items():
        found[name].append(load_run(run.result()).predictions)
    return found


# --- tables -------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def signed(found: Interval) -> str:
    """`+1.2 [0.3, 2.2]` in percent, bold where 0 lies outside."""
    value, low, high = (100 * x for x in (found.value, found.low, found.high))
    text = f"{value:+.1f} [{low:.1f}, {high:.1f}]"
    return f"**{text}**" if found.excludes_zero else text


def spread(values: Sequence[float]) -> str:
    """`81.2 ± 0.9` in percent: the mean over seeds and their standard deviation, where there are
    several."""
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"


Scored = dict[tuple[str, str, str], np.ndarray]
"""(score, setting, split) to [S, 1 + R], see `Bootstrap.scores`."""


def all_scores(predictions: Runs, size: Size) -> Scored:
    """Every score of every setting on every split, on the same draws of sessions."""
    first = predictions["none"][0]
    draws = {split: Bootstrap(first, split, size.resamples) for split in SPLITS}
    names = [(s, name, split) for s in SCORES for name in predictions for split in SPLITS]
    return {
        (s, name, split): draws[split].scores(predictions[name], s)
        for s, name, split in tqdm(names, "bootstrap")
        if name != ZERO_SHOT or not s.startswith("ODD")
    }


def score_table(scored: Scored, predictions: Runs, name: str) -> str:
    """A row a setting, a column a split: the score, and under it the difference to `none`."""
    rows = []
    for setting in predictions:
        cells = []
        for split in SPLITS:
            found = scored.get((name, setting, split))
            if found is None:
                cells.append("–")
                continue
            cell = spread(found[:, 0])
            if setting != "none":
                cell += f"<br>{signed(interval(found - scored[name, 'none', split]))}"
            cells.append(cell)
        rows.append([setting, *cells])
    return table(["", *SPLITS], rows)


def same_eyes_table(scored: Scored, predictions: Runs) -> str:
    """Differences to a decoder without stages that sees the VLM's frames, of all that see them."""
    rows = []
    for name in ("Acc", "mAP"):
        for setting in predictions:
            if "ich" in setting or "both" in setting:
                cells = [
                    signed(interval(scored[name, setting, s] - scored[name, SAME_EYES, s]))
                    for s in SPLITS
                ]
                rows.append([f"{name}: {setting}", *cells])
    return table(["", *SPLITS], rows)


def order_table(scored: Scored, predictions: Runs) -> str:
    """What the other order of two stages changes."""
    pairs = [("ici,ich", "ich,ici"), ("ivc,ich", "ich,ivc"), ("ivc,ici", "ici,ivc")]
    rows = []
    for name in ("Acc", "mAP"):
        for one, other in pairs:
            if one in predictions and other in predictions:
                cells = [
                    signed(interval(scored[name, one, s] - scored[name, other, s])) for s in SPLITS
                ]
                rows.append([f"{name}: {one} against {other}", *cells])
    return table(["", *SPLITS], rows)


def density_table(predictions: Runs) -> str:
    """ODD and implausible pairs at three thresholds on the test, means over seeds."""
    taus = (0.3, 0.6, 0.9)
    head = ["", *(f"{what} at {tau:g}" for tau in taus for what in ("ODD", "implausible"))]
    truth = score(predictions["none"][0], taus)["test"]
    own = [c for tau in taus for c in (f"{100 * (truth[f'ODD@{tau:g} truth'] or 0):.2f}", "–")]
    rows = [["ground truth", *own]]
    for name, runs in predictions.items():
        if name == ZERO_SHOT:
            continue
        scores = [score(run, taus)["test"] for run in runs]
        keys = [f"ODD@{tau:g}{what}" for tau in taus for what in ("", " implausible")]
        means = [np.mean([float(s[key] or 0) for s in scores]) for key in keys]
        rows.append([name, *(f"{100 * mean:.2f}" for mean in means)])
    return table(head, rows)


def partner_table(predictions: Runs) -> str:
    """How likely the partner of an action is predicted where the action is: mean of Q over pairs
    that no video has together, so that the truth is 0."""
    splits = ("test", "shift-i", "shift-all")
    rows = []
    for name, runs in predictions.items():
        if name == ZERO_SHOT:
            continue
        cells = []
        for split in splits:
            means = []
            for run in runs:
                part = run.labels["steps"]
                q = coprediction(sigmoid(part.logits[run.splits == split]))
                pairs = [(part.names.index(a), part.names.index(b)) for a, b in PARTNERS.items()]
                means.append(float(np.mean([q[i, j] for i, j in pairs])))
            cells.append(spread(means))
        rows.append([name, *cells])
    return table(["", *splits], rows)


def sweep_tables(sweeps: Mapping[Place, Runs], size: Size) -> tuple[str, dict[str, Any]]:
    """Markdown and numbers of the second part: a table a knob and a score, a row a level, and the
    last the difference between the highest level and the lowest, on the same performances."""
    text, numbers = [], {}
    settings = [name for name in SWEPT if name != "none"]
    for knob, stage in MEANT_FOR.items():
        for name in ("Acc", "mAP"):
            found: dict[float, dict[str, np.ndarray]] = {}
            for level in size.levels:
                runs = sweeps[knob, level]
                shift = Bootstrap(runs["none"][0], f"shift-{knob}", size.resamples)
                test = Bootstrap(runs["none"][0], "test", size.resamples)
                require_same_sessions(shift, test)
                base = shift.scores(runs["none"], name)
                found[level] = {
                    "none": base,
                    "cost": base - test.scores(runs["none"], name),
                    **{s: shift.scores(runs[s], name) - base for s in settings},
                }
            columns = ["cost", *settings]
            rows = []
            for level, by_column in found.items():
                cells = [signed(interval(by_column[c])) for c in columns]
                rows.append([f"{level:g}", spread(by_column["none"][:, 0]), *cells])
                for c in columns:
                    numbers[f"{knob}|{level:g}|{name}|{c}"] = vars(interval(by_column[c]))
            lowest, highest = found[size.levels[0]], found[size.levels[-1]]
            grown = [signed(interval(highest[c] - lowest[c])) for c in columns]
            ends = f"{size.levels[-1]:g} against {size.levels[0]:g}"
            rows.append([ends, "", *grown])
            shown = [f"{s} (meant)" if s == stage else s for s in settings]
            head = [knob.upper(), "none", "none: shift − test", *shown]
            text.append(
                f"### {name} on shift-{knob} as {knob.upper()} grows\n\n{table(head, rows)}"
            )
    return "\n\n".join(text), numbers


def require_same_sessions(one: Bootstrap, other: Bootstrap) -> None:
    """Raises PcmciError unless the draws of two splits are the same sessions'."""
    if not np.array_equal(one.sessions, other.sessions):
        raise PcmciError(f"{one.split} and {other.split} hold other sessions: nothing is paired")


# --- the whole ----------------------------------------------------------------------------------


def provenance(store: Path, size: Size) -> str:
    """The command, the commit, and what was used."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False, cwd=PAGE.parent,
    ).stdout.strip()  # fmt: skip
    with open_store(store) as opened:
        clip, timesformer = (e.sha256[:12] for e in (opened.spec.vlm, opened.spec.video))
    return (
        f"`{shlex.join(['python', *sys.argv])}` at commit {commit}; CLIP {clip}, TimeSformer "
        f"{timesformer}. {size.train} training, {size.val} validation and {size.test} test videos, "
        f"each of these with its four twins; {size.seeds} seeds, {size.epochs} epochs, "
        f"{size.resamples} draws of sessions and seeds."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="worlds, stores, runs, results")
    parser.add_argument("--quick", action="store_true", help="a small study, to see it run")
    parser.add_argument("--page", type=Path, help="whose tables are replaced (docs/evidence.md)")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    page = options.page or (None if options.quick else PAGE)
    if page:
        replace_tables(page.read_text(), SCRIPT, "")  # refused now rather than after an hour
    options.out.mkdir(parents=True, exist_ok=True)

    knobs = Knobs()
    store = store_of(options.out, knobs, size)
    with open_store(store) as opened:
        wide = as_many_parameters(
            opened.text("steps"), opened.spec.video.width, SETTINGS["feedforward"]
        )
    variants: dict[str, Variant] = {order_name(order): (order, {}) for order in size.orders}
    variants |= {
        "none, as many parameters as three stages": ((), {"feedforward": wide}),
        SAME_EYES: ((), {"tokens": "both"}),
        "ich, softmax of S (no transport)": (("ich",), {"transport_refine": "similarity"}),
        "ich, uniform weights (no S)": (("ich",), {"transport_refine": "uniform"}),
    }
    variants |= {name: (None, {"head": head}) for name, head in BASELINES.items()}
    predictions = train_all(store, variants, size)
    scored = all_scores(predictions, size)
    tables = [
        provenance(store, size),
        f"## The world at H = {knobs.h:g}, I = {knobs.i:g}, C = {knobs.c:g}",
        "Mean over seeds ± their standard deviation; under it the difference to `none` with its "
        "95 % interval over sessions and seeds, bold where it excludes 0 (of so many cells, one "
        "in twenty does by chance).",
        *(f"### {name}\n\n{score_table(scored, predictions, name)}" for name in SCORES),
        f"### Difference to `{SAME_EYES}`\n\n{same_eyes_table(scored, predictions)}",
        f"### The order of two stages\n\n{order_table(scored, predictions)}",
        f"### ODD over tau, test\n\n{density_table(predictions)}",
        "### Partners, which no video has together: mean Q in percent (truth: 0)",
        partner_table(predictions),
    ]
    print("\n\n".join(tables), flush=True)  # the second part takes as long again

    small = replace(size, test=size.swept_test, seeds=size.swept_seeds)
    knobs_at: dict[Place, Knobs] = {
        (knob, level): replace(Knobs(0, 0, 0), **{knob: level})
        for knob in MEANT_FOR
        for level in size.levels
    }
    stores = stores_of(options.out, knobs_at.values(), small)
    trained = {chosen: train_all(swept, SWEPT, small) for chosen, swept in stores.items()}
    swept_text, swept_numbers = sweep_tables({p: trained[k] for p, k in knobs_at.items()}, small)
    swept_tables = [
        "## One knob at a time",
        f"The other two at 0; {small.test} test videos, {small.seeds} seeds. Columns of settings: "
        "difference to `none` on the shifted split.",
        swept_text,
    ]

    print("\n\n".join(swept_tables))
    text = "\n\n".join([*tables, *swept_tables]) + "\n"
    numbers = {
        "|".join(key): {**vars(interval(found)), "seeds": found[:, 0].tolist()}
        for key, found in scored.items()
    }
    results = json.dumps({"main": numbers, "sweeps": swept_numbers}, indent=1)
    (options.out / "results.json").write_text(results + "\n")
    (options.out / "tables.md").write_text(text)
    if page:
        page.write_text(replace_tables(page.read_text(), SCRIPT, text))


if __name__ == "__main__":
    main()
