"""The runs of the study: one head in one cell each, kept as they come, so that it goes on later."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple
from pathlib import Path

import numpy as np
from tqdm import tqdm

from evidence.cells import CELLS, SIMILARITY, Cell
from evidence.heads import BOTH, HEADS
from evidence.world import SPLITS, make_world

Job = tuple[str, str]
"""A cell and a head."""


def jobs(cells: Sequence[str], heads: Sequence[str] | None = None) -> list[Job]:
    """In the order in which they are worth most, for a study may be cut short."""
    found = [
        (cell, head)
        for cell in cells
        for head in CELLS[cell].heads
        if heads is None or head in heads
    ]
    return sorted(found, key=_place)


def _place(job: Job) -> int:
    """Strong customs first, then experts, weak customs, the absence of any, the orders; what costs
    much or only rounds it off comes last."""
    cell, head = CELLS[job[0]], job[1]
    if cell.note:
        return 4 if cell.note == "all orders" else 7
    if head in ("experts, swap", SIMILARITY):
        return 6
    if head == "experts" or (cell.knobs.confounder == "c" and head == BOTH):
        return 1 if cell.knobs.confounder != "i" else 6
    telling = cell.knobs.share in (1 / 4, 1.0)
    return {0.9: 0, 0.5: 2 if telling else 5, 0.0: 3}[cell.knobs.eta_train]


def path_of(out: Path, job: Job, budget: object) -> Path:
    """Where a run is kept: named by everything that decides it but the code."""
    cell = job[0]
    name = f"{CELLS[cell].knobs}{CELLS[cell].labels}{job}{astuple(budget)}"  # type: ignore[call-overload]
    return out / f"{zlib.crc32(name.encode()):08x}.npz"


def commit() -> str:
    """Of this repository, `-dirty` where something of it has changed."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def codes(out: Path, wanted: Sequence[Job], budget: object) -> str:
    """With which code the runs that are there were made; they are kept when the code changes."""
    found = set()
    for path in (path_of(out, job, budget) for job in wanted):
        if path.exists():
            with np.load(path) as kept:
                found.add(str(kept["code"]) if "code" in kept else "not recorded")
    return ", ".join(sorted(found))


def world_seed(cell: Cell) -> int:
    """Another world for every cell, that a pattern over cells is of no one draw of videos."""
    return zlib.crc32(cell.name.encode())


def run_job(out: Path, job: Job, budget: object) -> Path:
    """Train, and keep what was said. Whole or not at all."""
    from evidence.training import Prepared, train

    cell, head = job
    path = path_of(out, job, budget)
    began = os.times()
    prepared = Prepared(make_world(CELLS[cell].knobs, world_seed(CELLS[cell])), CELLS[cell].labels)
    trained = train(prepared, HEADS[head], budget)
    ended = os.times()
    arrays = {f"logits/{split}": trained.logits[split] for split in SPLITS}
    arrays |= {f"oracle/{split}": trained.oracle[split] for split in SPLITS}
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial, **arrays, epochs=trained.epochs, oracle_epochs=trained.oracle_epochs,
        parameters=trained.parameters, seconds=sum(ended[:2]) - sum(began[:2]), code=commit(),
    )  # fmt: skip
    partial.replace(path)
    return path


def _begin() -> None:
    import torch

    torch.set_num_threads(1)


def run_all(out: Path, wanted: Sequence[Job], budget: object, processes: int) -> None:
    """Those that are not there yet, with a bar."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [job for job in wanted if not path_of(out, job, budget).exists()]
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc="runs", unit="run")
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(processes, mp_context=context, initializer=_begin) as workers:
        try:
            running = [workers.submit(run_job, out, job, budget) for job in missing]
            for done in as_completed(running):
                done.result()
                bar.update()
        finally:
            workers.shutdown(cancel_futures=True)
