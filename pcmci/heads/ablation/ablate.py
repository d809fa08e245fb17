"""Many runs at once: orders x seeds x a grid, resumed, shared, stacked, and made into tables.

table = pcmci.ablate(store, orders="all", seeds=5, tau=[0.3, 0.6, 0.9])
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pcmci.cache.schema import Status
from pcmci.cache.store import Store
from pcmci.cluster.patience import WAIT_MINUTES
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.ablation.grid import Model, check_grid, parse_models
from pcmci.heads.ablation.one_store import Preview, StoreSweep
from pcmci.heads.ablation.outcomes import Outcome
from pcmci.heads.ablation.results import Results, collect, write_facts
from pcmci.heads.ablation.stores import store_facts, store_names
from pcmci.heads.ablation.sweep import Trial
from pcmci.heads.catalogue import DEFAULT, HEADS, setting_name
from pcmci.heads.config import STAGES, parse_labels, parse_order
from pcmci.heads.scoring.metrics import TAU
from pcmci.heads.training.recipe import commit, file_name
from pcmci.heads.training.run import check_labels, check_name, check_text
from pcmci.heads.training.unchanged import unchanged_twins
from pcmci.saying import sayer

if TYPE_CHECKING:
    from pcmci.heads.ablation.distributed import Trainers

RESAMPLES = 1000
"""Of the bootstrap of differences."""


@dataclass(frozen=True)
class Ablation:
    """A sweep and what it found.

    path: the folder of its tables. results: rows by table, see `pcmci.heads.ablation.results`.
    done, failed: how many runs; failures: run -> reason. trained: runs that were not there before.
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
    def effects(self) -> list[dict[str, Any]]:
        """One a variant, label set and split of twins; empty where no store has twins."""
        return self.results.tables.get("effects", [])

    @property
    def summary(self) -> list[dict[str, Any]]:
        """One a variant, score and split: mean, standard deviation, difference, interval."""
        return self.results.tables["summary"]


@dataclass
class Ablator:
    """A sweep that is planned and can be previewed or run; `ablate` in two steps.

    Arguments as for `ablate`; trainers: one a store, or None where this machine trains.
    Raises UsageError for what cannot be planned.
    """

    stores: Store | Sequence[Store]
    orders: str | Sequence[tuple[str, ...] | str] | None = None
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
    trainers: Sequence[Trainers] | None = None
    heads: str | Sequence[str] = DEFAULT

    def __post_init__(self) -> None:
        for name in ("workers", "stack"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: must be at least 1")
        stores = [self.stores] if isinstance(self.stores, Store) else list(self.stores)
        labels = parse_labels(self.labels) if isinstance(self.labels, str) else self.labels
        labels = labels or stores[0].spec.label_sets
        for store in stores:
            check_labels(store, labels)
        names = store_names(stores)
        models = parse_models(self.heads, self.orders)
        for store in stores:
            for head in dict.fromkeys(head for head, _ in models):
                check_text(store, head)
        self.grid_ = check_grid({setting_name(n): tuple(v) for n, v in self.grid.items()})
        self.parts = [
            StoreSweep(
                store, name, models,
                tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds),
                self.grid_, labels, _reference(self.reference, models), Path(self.out),
                self.device, self.precision, self.memory, self.workers, self.stack,
                self.retry_failed, self.progress, self.values,
                self.trainers[k] if self.trainers else None,
            )
            for k, (store, name) in enumerate(zip(stores, names, strict=True))
        ]  # fmt: skip
        trials = tuple(trial for part in self.parts for trial in part.sweep.trials)
        self.sweep = replace(self.parts[0].sweep, trials=trials)

    @property
    def key(self) -> str:
        """The same for the same runs of the same stores."""
        keys = [t.recipe.key(part.store) for part in self.parts for t in part.sweep.trials]
        text = json.dumps([keys, self.sweep.reference.name])
        return hashlib.sha256(text.encode()).hexdigest()

    def preview(self) -> Preview:
        """Count what there is, and time a few steps of what there is not; on a cluster nothing is
        timed."""
        return Preview.of_all([part.preview() for part in self.parts])

    def run(
        self,
        taus: Sequence[float] = (TAU,),
        results: str | Path = "ablations",
        resamples: int = RESAMPLES,
        command: str = "",
        costs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Ablation:
        """Train what is not there, then score everything and write the tables.

        costs: a store's path -> what is known of its encoder's cost, for the page.

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
            resamples=resamples, progress=self.progress, dataset=self.parts[0].store.spec.dataset,
            same={part.name: unchanged_twins(part.store) for part in self.parts},
        )  # fmt: skip
        folder = Path(results) / f"{file_name(self.parts[0].store)}_{self.key[:8]}"
        trained = {o.trial.recipe for o in outcomes if o.run and not o.run.reused}
        failures = {
            _shown(outcome.trial): outcome.reason for outcome in outcomes if not outcome.run
        }
        stores = {
            part.name: {
                "path": str(part.store.path),
                **store_facts(part.store),
                "cost": dict((costs or {}).get(str(part.store.path), {})),
            }
            for part in self.parts
        }
        facts = self._facts(taus, resamples, command) | {
            "stores": stores,
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
        return [outcome for part in self.parts for outcome in part.train()]

    def _facts(self, taus: Sequence[float], resamples: int, command: str) -> dict[str, Any]:
        store = self.parts[0].store
        without = [status for status in Status if status is not Status.DONE]
        lost = [
            video | ({"store": part.name} if part.name else {})
            for part in self.parts
            for video in part.store.listed(*without)
        ]
        return {
            "dataset": store.spec.dataset,
            "labels": self.sweep.labels,
            "heads": list(dict.fromkeys(v.head for v in self.sweep.variants)),
            "orders": list(dict.fromkeys(v.order_name for v in self.sweep.variants)),
            "seeds": self.sweep.seeds,
            "grid": {name: list(values) for name, values in self.grid_.items()},
            "reference": self.sweep.reference.name,
            "taus": list(taus),
            "resamples": resamples,
            "store": str(store.path),
            **store_facts(store),
            "lost videos": lost,
            "commit": commit(),
            "torch": torch.__version__,
            "device": str(self.parts[0].on),
            "epochs": self.sweep.trials[0].recipe.train.epochs,
            "command": command,
            "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        }


def ablate(
    stores: Store | Sequence[Store],
    orders: str | Sequence[tuple[str, ...] | str] | None = None,
    seeds: int | Sequence[int] = 5,
    *,
    heads: str | Sequence[str] = DEFAULT,
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
    wait_workers: float = WAIT_MINUTES,
    **values: Any,
) -> Ablation:
    """Every head and order with every seed and every combination of the grid, each a run in `out`
    as `train_heads` makes it; then tables in a folder under `results`.

    stores: one, or several over the same videos, which are then rows too. orders: of the head
    `pcmci`: `all`, `paper`, `"none; ich,ici"`, or a list of orders; None as `parse_models` has it.
    heads: `all`, `"pcmci,mlp"`, or a list of names. seeds: how many, or which.
    tau: thresholds of ODD; they cost no training. grid: setting -> values. Settings of the
    training are tried for every order alike and chosen on validation; settings of the model make
    rows of their own. reference: the order or head that the
    others are compared with. workers: processes;
    stack: how many runs are trained as one model. resamples: of the bootstrap, 0 for none.
    scheduler: of a Dask cluster that trains, its address or its scheduler file; the store and `out`
    have to lie where its workers see them; wait_workers: minutes without one that can train, after
    which the sweep ends. values: settings of all runs, as `epochs=30`.
    Runs that are there are not trained again, runs that diverged before not tried again unless
    `retry_failed`. A run that fails is recorded, and the others go on.
    Raises UsageError for arguments, PcmciError where every run failed.
    """
    with trainers_of(scheduler, workers, stores, out, device, progress, wait_workers) as trainers:
        ablator = Ablator(
            stores, orders, seeds, grid or {}, labels, reference, out, device, precision, memory,
            workers, stack, retry_failed, progress, values, trainers, heads,
        )  # fmt: skip
        return ablator.run(tau, results, resamples)


@contextlib.contextmanager
def trainers_of(
    scheduler: str | None,
    workers: int | None,
    stores: Store | Sequence[Store],
    out: str | Path,
    device: str = "auto",
    progress: bool = True,
    wait_workers: float = WAIT_MINUTES,
) -> Iterator[list[Trainers] | None]:
    """The workers of a cluster, for an `Ablator`, once a store; None where no cluster was named.

    Raises UsageError where `workers` of this machine are asked for too, ClusterError, NoWorker.
    """
    if scheduler is None:
        yield None
        return
    from pcmci.cluster.connect import connect, dashboard
    from pcmci.heads.ablation.distributed import Trainers

    say = sayer(progress)
    with connect(scheduler, workers) as client, contextlib.ExitStack() as opening:
        say(f"dashboard: {dashboard(client)}")
        yield [
            opening.enter_context(Trainers(client, store, Path(out), device, say, wait_workers))
            for store in ([stores] if isinstance(stores, Store) else stores)
        ]


def _reference(reference: tuple[str, ...] | str | None, models: Sequence[Model]) -> Model | None:
    """A head or an order; of `pcmci` the paper's own order where it is there."""
    if reference is None or not isinstance(reference, str):
        return None if reference is None else (DEFAULT, reference)
    if reference.strip().lower() == DEFAULT:
        own = [model for model in models if model[0] == DEFAULT]
        return next((m for m in own if m[1] == STAGES), own[0] if own else (DEFAULT, STAGES))
    if reference.strip().lower() in HEADS:
        return reference.strip().lower(), ()
    return DEFAULT, parse_order(reference)


def _shown(trial: Trial) -> str:
    return " ".join(filter(None, [trial.variant.name, trial.tried_name, f"seed {trial.seed}"]))
