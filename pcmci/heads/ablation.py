"""Many runs at once: orders x seeds x a grid, resumed, shared, stacked, and made into tables.

table = pcmci.ablate(store, orders="all", seeds=5, tau=[0.3, 0.6, 0.9])
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from pcmci.cache.schema import Status
from pcmci.cache.store import Store
from pcmci.device import choose_device, choose_precision, usable_cores
from pcmci.errors import ClusterError, PcmciError, UsageError
from pcmci.heads.config import TransportConfig, order_name, parse_labels, parse_order, setting_name
from pcmci.heads.frozen import frozen_weights
from pcmci.heads.grid import Grid, check_grid, check_orders, parse_orders
from pcmci.heads.metrics import TAU
from pcmci.heads.model import ich_is_frozen
from pcmci.heads.pool import Place, threads, train_groups
from pcmci.heads.probe import bytes_of_a_run, seconds_of_a_step
from pcmci.heads.recipe import Recipe, commit, file_name
from pcmci.heads.results import Outcome, Results, collect, write_facts
from pcmci.heads.run import check_labels, check_name, find_failure, find_run
from pcmci.heads.splits import training_splits
from pcmci.heads.sweep import Sweep, Trial, groups, plan_sweep
from pcmci.heads.training import build_model
from pcmci.plain import plain
from pcmci.stopping import StoppedError, stop_signals

if TYPE_CHECKING:
    from pcmci.heads.distributed import Trainers

RESAMPLES = 1000
"""Of the bootstrap of differences."""
FEATURE_SHARE, STACK_SHARE = 0.4, 0.45
"""Of a GPU's free memory, for features and for stacks; the rest is the allocator's."""


@dataclass(frozen=True)
class Ablation:
    """A sweep and what it found.

    path: the folder of its tables. results: rows by table, see `pcmci.heads.results`. done, failed:
    how many runs; failures: run -> reason. trained: runs that were not there before.
    """

    path: Path
    results: Results
    done: int
    trained: int
    failures: dict[str, str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One a run: order, seed, settings, scores, counts, seconds, commit, fingerprint."""
        return self.results.tables["results"]

    @property
    def summary(self) -> list[dict[str, Any]]:
        """One a variant, score and split: mean, standard deviation, difference, interval."""
        return self.results.tables["summary"]


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


@dataclass
class Ablator:
    """A sweep that is planned and can be previewed or run; `ablate` in two steps.

    Arguments as for `ablate`. Raises UsageError for what cannot be planned.
    """

    store: Store
    orders: str | Sequence[tuple[str, ...] | str] = "all"
    seeds: int | Sequence[int] = 5
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    labels: tuple[str, ...] | str | None = None
    reference: tuple[str, ...] | str | None = None
    out: str | Path = "runs"
    device: str = "auto"
    precision: str = "auto"
    memory: int | None = None
    workers: int | None = None
    stack: int | None = None
    retry_failed: bool = False
    progress: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)
    trainers: Trainers | None = None

    def __post_init__(self) -> None:
        store = self.store
        for name in ("workers", "stack"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: must be at least 1")
        labels = parse_labels(self.labels) if isinstance(self.labels, str) else self.labels
        labels = labels or store.spec.label_sets
        check_labels(store, labels)
        if self.trainers is None:
            self._device = choose_device(self.device)
        else:
            self._device = torch.device(self.trainers.about.device)
        reference = self.reference
        self.sweep: Sweep = plan_sweep(
            _orders(self.orders),
            tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds),
            _grid(self.grid),
            labels,
            self.values,
            reference=parse_order(reference) if isinstance(reference, str) else reference,
            precision=choose_precision(self.precision, self._device),
            device=self._device.type,
            has_validation="val" in store.splits,
        )
        self._check()

    def _check(self) -> None:
        """Refuse what no run could be made of, before any is."""
        store = self.store
        splits, groups_ = np.array(store.splits), np.array(store.groups)
        for share in {trial.recipe.train.validation for trial in self.sweep.trials}:
            training_splits(splits, groups_, store.activity, share)
        for recipe in {trial.recipe.stack_key for trial in self.sweep.trials}:
            for labels in self.sweep.labels:
                with torch.device("meta"):  # shapes alone
                    build_model(recipe.model, store.text(labels), store.spec.video.width, 0)

    @property
    def key(self) -> str:
        """The same for the same runs of the same store."""
        keys = [trial.recipe.key(self.store) for trial in self.sweep.trials]
        text = json.dumps([keys, self.sweep.reference.name])
        return hashlib.sha256(text.encode()).hexdigest()

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

    def run(
        self,
        taus: Sequence[float] = (TAU,),
        results: str | Path = "ablations",
        resamples: int = RESAMPLES,
        command: str = "",
    ) -> Ablation:
        """Train what is not there, then score everything and write the tables.

        Raises PcmciError where no run at all went well.
        """
        for flag, place in (("--out", self.out), ("--results", results)):
            check_name(flag, place)
        began = time.perf_counter()
        taus = sorted(set(taus))
        outcomes = self.train()
        if not any(outcome.run for outcome in outcomes):
            raise PcmciError(f"every run failed, the first with: {outcomes[0].reason}")
        found = collect(
            self.sweep, outcomes, taus,
            resamples=resamples, progress=self.progress, dataset=self.store.spec.dataset,
        )  # fmt: skip
        folder = Path(results) / f"{file_name(self.store)}_{self.key[:8]}"
        trained = {o.trial.recipe for o in outcomes if o.run and not o.run.reused}
        failures = {
            _shown(outcome.trial): outcome.reason for outcome in outcomes if not outcome.run
        }
        facts = self._facts(taus, resamples, command) | {
            "runs": len(outcomes),
            "done": sum(outcome.run is not None for outcome in outcomes),
            "seconds": time.perf_counter() - began,
            "failed runs": failures,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found.write(folder)
            write_facts(folder, facts)
        except OSError as error:
            raise PcmciError(f"{folder} cannot be written: {error.strerror}") from error
        return Ablation(folder, found, facts["done"], len(trained), failures)

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
            model = trial.recipe.model
            if "ich" not in model.order or not ich_is_frozen(model):
                continue
            for labels in self.sweep.labels:
                key = (labels, model.transport)
                if key not in seen:
                    seen[key] = None
                    try:
                        self._solve_one(labels, model.transport)
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
        spare = Path(self.out) / "plans"
        frozen_weights(self.store, labels, config, self._device, self.progress, spare)

    def _groups(self, pending: Sequence[Trial]) -> tuple[list[list[Trial]], int]:
        """The stacks to train, and the width of the widest."""
        found = groups(pending, self.store, self._width)
        return found, max(map(len, found), default=0)

    def _width(self, recipe: Recipe) -> int:
        """As many runs as the GPU's memory holds. On a CPU one: its cores are busy with one run
        each, and a stack only falls out of their caches (benchmarks/ablation.py)."""
        if self.stack:
            return self.stack
        if self._device.type == "cpu":
            return 1
        needed = max(bytes_of_a_run(self.store, recipe, labels) for labels in self.sweep.labels)
        return int(STACK_SHARE * self._free() / (self.workers or 1) / needed)

    def _feature_memory(self) -> int | None:
        """Bytes for features: as asked for, else a share of the GPU; None for what there is."""
        if self.memory is None and self._device.type != "cpu":
            return int(FEATURE_SHARE * self._free())
        return self.memory

    def _free(self) -> int:
        """Bytes of a GPU's memory, here or where runs are trained."""
        if self.trainers is not None:
            return self.trainers.about.free
        return int(torch.cuda.mem_get_info(self._device)[0])

    def _place(self, todo: int) -> Place:
        on_cpu = self._device.type == "cpu"
        workers = self.workers or (max(1, min(usable_cores(), todo)) if on_cpu else 1)
        workers = max(1, min(workers, todo))
        memory = self._feature_memory()
        if memory is None and workers > 1:
            memory = int(psutil.virtual_memory().available) // 2
        return Place(
            out=Path(self.out),
            device=self._device,
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
            seconds_of_a_step(self.store, recipes, labels, self._device)
            for labels in self.sweep.labels
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

    def _facts(self, taus: Sequence[float], resamples: int, command: str) -> dict[str, Any]:
        store, spec = self.store, self.store.spec
        counts = store.counts
        lost = store.listed(*(status for status in Status if status is not Status.DONE))
        splits = dict.fromkeys(store.splits)
        done = set(store.done_rows.tolist())
        return {
            "dataset": spec.dataset,
            "labels": self.sweep.labels,
            "orders": [order_name(o) for o in dict.fromkeys(v.order for v in self.sweep.variants)],
            "seeds": self.sweep.seeds,
            "grid": {name: list(values) for name, values in _grid(self.grid).items()},
            "reference": self.sweep.reference.name,
            "taus": list(taus),
            "resamples": resamples,
            "store": str(store.path),
            "fingerprint": store.fingerprint,
            "content digest": store.content_digest,
            "counts": {s.name.lower(): counts[s] for s in Status if counts[s]},
            "coverage": {
                split: [
                    sum(i in done for i, s in enumerate(store.splits) if s == split),
                    store.splits.count(split),
                ]
                for split in splits
            },
            "lost videos": lost,
            "vlm": spec.vlm,
            "video encoder": spec.video,
            "frames": spec.sampling.frames,
            "libraries": spec.libraries,
            "commit": commit(),
            "torch": torch.__version__,
            "device": str(self._device),
            "epochs": self.sweep.trials[0].recipe.train.epochs,
            "command": command,
            "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        }


def ablate(
    store: Store,
    orders: str | Sequence[tuple[str, ...] | str] = "all",
    seeds: int | Sequence[int] = 5,
    *,
    tau: Sequence[float] = (TAU,),
    grid: Mapping[str, Sequence[Any]] | None = None,
    labels: tuple[str, ...] | str | None = None,
    reference: tuple[str, ...] | str | None = None,
    out: str | Path = "runs",
    results: str | Path = "ablations",
    device: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    workers: int | None = None,
    stack: int | None = None,
    resamples: int = RESAMPLES,
    retry_failed: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
    **values: Any,
) -> Ablation:
    """Every order with every seed and every combination of the grid, each a run in `out` as
    `train_heads` makes it; then tables in a folder under `results`.

    orders: `all`, `paper`, `"none; ich,ici"`, or a list of orders. seeds: how many, or which.
    tau: thresholds of ODD; they cost no training. grid: setting -> values. Settings of the
    training are tried for every order alike and chosen on validation; settings of the model make
    rows of their own. reference: the order that the others are compared with. workers: processes;
    stack: how many runs are trained as one model. resamples: of the bootstrap, 0 for none.
    scheduler: of a Dask cluster that trains, its address or its scheduler file; the store and `out`
    have to lie where its workers see them. values: settings of all runs, as `epochs=30`.
    Runs that are there are not trained again, runs that diverged before not tried again unless
    `retry_failed`. A run that fails is recorded, and the others go on.
    Raises UsageError for arguments, PcmciError where every run failed.
    """
    with trainers_of(scheduler, workers, store, out, device, progress) as trainers:
        ablator = Ablator(
            store, orders, seeds, grid or {}, labels, reference, out, device, precision, memory,
            workers, stack, retry_failed, progress, values, trainers,
        )  # fmt: skip
        return ablator.run(tau, results, resamples)


@contextlib.contextmanager
def trainers_of(
    scheduler: str | None,
    workers: int | None,
    store: Store,
    out: str | Path,
    device: str = "auto",
    progress: bool = True,
) -> Iterator[Trainers | None]:
    """The workers of a cluster, for an `Ablator`; None where none was named.

    Raises UsageError where `workers` of this machine are asked for too, ClusterError, NoWorker.
    """
    if scheduler is None:
        yield None
        return
    from pcmci.cluster.connect import connect, dashboard
    from pcmci.heads.distributed import Trainers

    def say(line: str) -> None:
        if progress:
            tqdm.write(plain(line), file=sys.stderr)

    with connect(scheduler, workers) as client:
        say(f"dashboard: {dashboard(client)}")
        with Trainers(client, store, Path(out), device, say) as trainers:
            yield trainers


def _orders(orders: str | Sequence[tuple[str, ...] | str]) -> tuple[tuple[str, ...], ...]:
    if isinstance(orders, str):
        return parse_orders(orders)
    return check_orders(tuple(parse_order(o) if isinstance(o, str) else tuple(o) for o in orders))


def _grid(grid: Mapping[str, Sequence[Any]]) -> Grid:
    return check_grid({setting_name(name): tuple(values) for name, values in grid.items()})


def _shown(trial: Trial) -> str:
    return " ".join(filter(None, [trial.variant.name, trial.tried_name, f"seed {trial.seed}"]))
