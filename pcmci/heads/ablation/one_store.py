"""The runs of a sweep on one store: which are there, how long others take, and their training."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from pcmci.cache.store import Store
from pcmci.device import choose_device, choose_precision, usable_cores
from pcmci.errors import ClusterError, PcmciError
from pcmci.heads.ablation.grid import Grid, Model
from pcmci.heads.ablation.outcomes import Outcome
from pcmci.heads.ablation.pool import Place, threads, train_groups
from pcmci.heads.ablation.probe import bytes_of_a_run, seconds_of_a_step
from pcmci.heads.ablation.sweep import Sweep, Trial, groups, plan_sweep
from pcmci.heads.config import TransportConfig
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.frozen import frozen_weights
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import find_failure, find_run
from pcmci.heads.training.splits import training_splits
from pcmci.stopping import StoppedError, stop_signals

if TYPE_CHECKING:
    from pcmci.heads.ablation.distributed import Trainers

FEATURE_SHARE, STACK_SHARE = 0.4, 0.45
"""Of a GPU's free memory, for features and for stacks; the rest is the allocator's."""


@dataclass(frozen=True)
class Preview:
    """What a sweep would do. seconds: about how long, None where nothing is to be done; stack: how
    many runs are trained together at most."""

    runs: int
    there: int
    failed: int
    groups: int
    stack: int
    workers: int
    seconds: float | None

    @classmethod
    def of_all(cls, parts: Sequence[Preview]) -> Preview:
        """Of work that is done one after the other."""
        timed = [part.seconds for part in parts if part.seconds is not None]
        return cls(
            **{
                name: sum(getattr(part, name) for part in parts)
                for name in ("runs", "there", "failed", "groups")
            },
            stack=max(part.stack for part in parts),
            workers=max(part.workers for part in parts),
            seconds=sum(timed) if timed else None,
        )


@dataclass
class StoreSweep:
    """The part of a sweep that one store has; planned, and then previewed or trained.

    name: of the store among several. models, grid, labels, seeds, reference, values: see
    `plan_sweep`. The rest as for `pcmci.heads.ablation.ablate.ablate`.
    Raises UsageError for what cannot be planned.
    """

    store: Store
    name: str
    models: Sequence[Model]
    seeds: Sequence[int]
    grid: Grid
    labels: tuple[str, ...]
    reference: Model | None
    out: Path
    device: str
    precision: str
    memory: int | None
    workers: int | None
    stack: int | None
    retry_failed: bool
    progress: bool
    values: Mapping[str, Any]
    trainers: Trainers | None

    def __post_init__(self) -> None:
        store = self.store
        if self.trainers is None:
            self.on = choose_device(self.device)
        else:
            self.on = torch.device(self.trainers.about.device)
        self.sweep: Sweep = plan_sweep(
            self.models, self.seeds, self.grid, self.labels, self.values,
            reference=self.reference, precision=choose_precision(self.precision, self.on),
            device=self.on.type, has_validation="val" in store.splits, store=self.name,
        )  # fmt: skip
        self._check()

    def _check(self) -> None:
        """Refuse what no run could be made of, before any is."""
        store = self.store
        splits, groups_ = np.array(store.splits), np.array(store.groups)
        for share in {trial.recipe.train.validation for trial in self.sweep.trials}:
            training_splits(splits, groups_, store.activity, share)
        for recipe in {trial.recipe.stack_key for trial in self.sweep.trials}:
            recipe.model.check_frames(store.spec.vlm.tokens)
            for labels in self.sweep.labels:
                with torch.device("meta"):  # shapes alone
                    build_model(recipe.model, store.text(labels), store.spec.video.width, 0, labels)

    def pending(self) -> list[Trial]:
        """The trials that are not there, and did not fail before (or are to be tried again)."""
        return [
            trial
            for trial in self.sweep.trials
            if not find_run(self.store, trial.recipe, self.out)
            and (self.retry_failed or not find_failure(self.store, trial.recipe, self.out))
        ]

    def preview(self) -> Preview:
        """Count what there is, and time a few steps of what there is not; on a cluster nothing is
        timed."""
        outcomes = [self._outcome(trial) for trial in self.sweep.trials]
        todo, width = self._groups(self.pending())
        if self.trainers is not None:
            return self._counted(outcomes, todo, width, len(self.trainers), None)
        place = self._place(len(todo))
        seconds: float | None = None
        if todo:
            seconds = 0.0
            measured: dict[Any, float] = {}
            bar = tqdm(todo, "timing a step", leave=False, disable=not self.progress)
            with threads(place.threads):
                for group in bar:
                    key = (group[0].recipe.stack_key, len(group))
                    if key not in measured:
                        measured[key] = self._seconds(group)
                    seconds += measured[key]
            seconds /= place.workers
        return self._counted(outcomes, todo, width, place.workers, seconds)

    def _counted(
        self,
        outcomes: Sequence[Outcome],
        todo: Sequence[Sequence[Trial]],
        width: int,
        workers: int,
        seconds: float | None,
    ) -> Preview:
        return Preview(
            runs=len(outcomes),
            there=sum(outcome.run is not None for outcome in outcomes),
            failed=0 if self.retry_failed else sum(bool(o.reason) for o in outcomes),
            groups=len(todo),
            stack=width,
            workers=workers,
            seconds=seconds,
        )

    def train(self) -> list[Outcome]:
        """Train what is not there; how every trial of the sweep ended, in its order.

        Raises StoppedError after SIGINT or SIGTERM: finished runs are kept.
        """
        pending = self.pending()
        errors = self._train(pending)
        outcomes = [self._outcome(trial, errors) for trial in self.sweep.trials]
        fresh = {trial.recipe for trial in pending}
        return [
            replace(outcome, run=replace(outcome.run, reused=False))
            if outcome.run and outcome.trial.recipe in fresh
            else outcome
            for outcome in outcomes
        ]

    def _train(self, pending: Sequence[Trial]) -> dict[str, str]:
        """Key of a run -> what stopped it, where it was not the run's own loss."""
        errors = self._solve(pending)
        todo, _ = self._groups([t for t in pending if t.recipe.key(self.store) not in errors])
        total = sum(
            len(group) * len(self.sweep.labels) * group[0].recipe.train.epochs for group in todo
        )
        done = 0
        with stop_signals() as stop, tqdm(
            total=total, unit="epoch", desc=f"{sum(map(len, todo))} runs",
            disable=not (self.progress and todo),
            mininterval=0.1 if sys.stderr.isatty() else 30,  # a job's log needs no more
        ) as bar:  # fmt: skip
            recipes = [[trial.recipe for trial in group] for group in todo]

            def on_epochs(count: int) -> None:
                bar.update(count)
                if stop.number:
                    left = sum(map(len, todo)) - done
                    raise StoppedError(
                        stop.number, f"{left} runs are left: the same command goes on from here"
                    )

            if self.trainers is None:
                trained = train_groups(self.store, recipes, self._place(len(todo)), on_epochs)
            else:
                trained = self.trainers.train(recipes, self._feature_memory(), on_epochs)
            for index, error in trained:
                done += len(todo[index])
                bar.set_postfix_str(f"{done} done", refresh=False)
                if error is not None:
                    errors |= {t.recipe.key(self.store): error for t in todo[index]}
        return errors

    def _solve(self, pending: Sequence[Trial]) -> dict[str, str]:
        """Compute the frozen plans, once for all runs; what cannot be solved, by run."""
        errors: dict[str, str] = {}
        seen: dict[Any, str | None] = {}
        for trial in pending:
            transport = trial.recipe.model.frozen_transport
            if transport is None:
                continue
            for labels in self.sweep.labels:
                key = (labels, transport)
                if key not in seen:
                    seen[key] = None
                    try:
                        self._solve_one(labels, transport)
                    except ClusterError:
                        raise
                    except PcmciError as error:
                        seen[key] = str(error)
                if reason := seen[key]:
                    errors[trial.recipe.key(self.store)] = reason
        return errors

    def _solve_one(self, labels: str, config: TransportConfig) -> None:
        if self.trainers is not None:
            self.trainers.solve(labels, config)
            return
        spare = self.out / "plans"
        frozen_weights(self.store, labels, config, self.on, self.progress, spare)

    def _groups(self, pending: Sequence[Trial]) -> tuple[list[list[Trial]], int]:
        """The stacks to train, and the width of the widest."""
        found = groups(pending, self.store, self._width)
        return found, max(map(len, found), default=0)

    def _width(self, recipe: Recipe) -> int:
        """As many runs as the GPU's memory holds. On a CPU one: its cores are busy with one run
        each, and a stack only falls out of their caches (benchmarks/ablation.py)."""
        if self.stack:
            return self.stack
        if self.on.type == "cpu":
            return 1
        needed = max(bytes_of_a_run(self.store, recipe, labels) for labels in self.sweep.labels)
        if not needed:  # nothing is trained
            return 1
        return int(STACK_SHARE * self._free() / (self.workers or 1) / needed)

    def _feature_memory(self) -> int | None:
        """Bytes for features: as asked for, else a share of the GPU; None for what there is."""
        if self.memory is None and self.on.type != "cpu":
            return int(FEATURE_SHARE * self._free())
        return self.memory

    def _free(self) -> int:
        """Bytes of a GPU's memory, here or where runs are trained."""
        if self.trainers is not None:
            return self.trainers.about.free
        return int(torch.cuda.mem_get_info(self.on)[0])

    def _place(self, todo: int) -> Place:
        on_cpu = self.on.type == "cpu"
        workers = self.workers or (max(1, min(usable_cores(), todo)) if on_cpu else 1)
        workers = max(1, min(workers, todo))
        memory = self._feature_memory()
        if memory is None and workers > 1:
            memory = int(psutil.virtual_memory().available) // 2
        return Place(
            out=self.out,
            device=self.on,
            memory=None if memory is None else memory // workers,
            workers=workers,
            threads=max(1, usable_cores() // workers),
        )

    def _seconds(self, group: Sequence[Trial]) -> float:
        train = group[0].recipe.train
        videos = len(self.store.done_rows)  # most of them train
        steps = math.ceil(videos / train.batch_size) * train.epochs
        recipes = [trial.recipe for trial in group]
        return steps * sum(
            seconds_of_a_step(self.store, recipes, labels, self.on) for labels in self.sweep.labels
        )

    def _outcome(self, trial: Trial, errors: Mapping[str, str] | None = None) -> Outcome:
        run = find_run(self.store, trial.recipe, self.out)
        if run:
            return Outcome(trial, run)
        if reason := (errors or {}).get(trial.recipe.key(self.store)):
            return Outcome(trial, None, reason)
        failure = find_failure(self.store, trial.recipe, self.out)
        if failure is None:
            return Outcome(trial, None, "its folder is not there" if errors is not None else "")
        return Outcome(trial, None, str(failure), failure.step)
