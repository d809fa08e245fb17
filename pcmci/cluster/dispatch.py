"""Tasks of a few items for the workers of a cluster, which may come, die and go.

Dask would run a task again wherever it likes. Here each task is for one worker, and never more than
a few for each: so a worker can be looked at before it gets any, it is known whose death a task was
in at, and what a worker holds stays bounded however large the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from dask.typing import Key
from distributed import Client, Future
from distributed.comm import CommClosedError

from pcmci.cluster.connect import lost
from pcmci.cluster.exits import FAULTS, Exits, check_faults
from pcmci.cluster.halting import halt
from pcmci.cluster.late import late
from pcmci.cluster.patience import NOBODY, NONE_USABLE, WAIT_MINUTES, Patience
from pcmci.errors import ClusterError, NoWorker, PcmciError

DEATHS = 3
"""An item that was in at the deaths of so many workers is not tried again."""

TASKS_A_WORKER = 3
"""In flight, with the one that waits there for its turn."""

POLL_SECONDS = 0.5
LOOK_SECONDS = 3

Item = TypeVar("Item", bound=Hashable)


@dataclass
class Member:
    """A worker as the user knows it, by name; a nanny starts it again under the same one.

    refused: why it gets no work, "" where it does. deaths: of its processes; stillborn: of these,
    before it could work; faults: of these, by how they ended by themselves. left: times that it
    went away as it should. since: when it could first work (`time.monotonic`).
    """

    name: str
    refused: str = ""
    deaths: int = 0
    left: int = 0
    stillborn: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    since: float = 0.0

    @property
    def note(self) -> str:
        """What there is to say of it, if anything."""
        times = {1: "once", 2: "twice"}
        died = f"died {times.get(self.deaths, f'{self.deaths} times')}" if self.deaths else ""
        refused = f"got no work: {self.refused}" if self.refused else ""
        return ", ".join(filter(None, (died, "left" if self.left else "", refused)))


@dataclass(frozen=True)
class Finished(Generic[Item]):
    """A task that came back. items: what it was given."""

    worker: Member
    items: list[Item]
    result: Any


@dataclass(frozen=True)
class Killer(Generic[Item]):
    """An item that kills its workers."""

    item: Item
    reason: str


@dataclass
class _Process:
    """A worker's process, by its address. ready: it may do the work. alone: it does so with an item
    that is suspect. leaving: it said that it was told to go."""

    member: Member
    ready: bool = False
    alone: bool = False
    leaving: bool = False
    tasks: dict[Key, _Task] = field(default_factory=dict)


@dataclass
class _Task:
    """items: () for the question whether the worker may do the work."""

    future: Future
    items: tuple[Any, ...]


class Dispatcher(Generic[Item]):
    """Gives out items, `for what in Dispatcher(...).run(items)`.

    client: of the cluster. work: run on a worker with a list of at most `size` items. least: so
    many take a worker no more time than one does (a batch), so that fewer save nothing.
    admit: run once on each worker's process before it gets work; judge: told what it answered,
    returns why the worker cannot be used, or "". token: what a task asks `is_halted` about.
    wait_minutes: how long a run waits that has no usable worker.
    stopping: asked often; once it says yes no task is given out any more, and those that are out
    are told to end. say: a line for the user. tick: called a few times a second.
    members: by name, with what became of them.
    """

    def __init__(
        self,
        client: Client,
        work: Callable[[list[Item]], Any],
        admit: Callable[[], Any],
        judge: Callable[[Any], str],
        *,
        token: str,
        size: int = 1,
        least: int = 1,
        tasks_a_worker: int = TASKS_A_WORKER,
        wait_minutes: float = WAIT_MINUTES,
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda line: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.client, self._work, self._judge = client, work, judge
        self._admit = late(admit)
        self._token, self._tasks_a_worker = token, tasks_a_worker
        self._size, self._least = size, least
        self._stopping, self._say, self._tick = stopping, say, tick
        self.members: dict[str, Member] = {}
        self._processes: dict[str, _Process] = {}
        self._where: dict[Key, str] = {}  # a task's key -> the address of its worker
        self._todo: deque[Item] = deque()
        self._suspects: deque[Item] = deque()
        self._deaths: Counter[Item] = Counter()
        self._exits, self._patience = Exits(client), Patience(wait_minutes, say)
        # Since a worker could last work: processes that died before they could, how they ended by
        # themselves, and whose they were.
        self._stillborn = 0
        self._faults: Counter[str] = Counter()
        self._unborn: dict[str, Member] = {}
        self._halted = False
        self._looked = 0.0
        self._gone: set[str] = set()
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run(self, items: Iterable[Item]) -> Iterator[Finished[Item] | Killer[Item]]:
        """Yields what comes back, in the order in which it does.

        An item whose worker died is tried again, alone on a worker, so that it is known whose fault
        a second death is; after the third it comes back as a `Killer`.
        Raises ClusterError where the scheduler is lost, where no worker may do the work, where the
        work itself fails on several, and where workers end by themselves, or none comes in time.
        """
        self._todo.extend(items)
        try:
            with self._exits:
                yield from self._run()
        except (OSError, CommClosedError, TimeoutError) as error:
            raise lost(error) from error
        finally:
            self._let_go()

    def _run(self) -> Iterator[Finished[Item] | Killer[Item]]:
        self.client.subscribe_topic("all", self._on_event)
        yield from self._look()
        while self._todo or self._suspects or self._in_flight():
            self._check_connection()
            self._tick()
            if self._stopping():
                self._halt()
                if not self._in_flight():
                    return
            else:
                self._feed()
                self._check_workers()
            yield from self._next_event()
            self._hear_exits()

    # --- what happens -----------------------------------------------------------------------------

    def _on_event(self, event: tuple[float, Any]) -> None:
        """Of the scheduler, in the client's own thread."""
        _, message = event
        if isinstance(message, dict) and message.get("action") in ("add-worker", "remove-worker"):
            self._events.put((message["action"], message))

    def _on_leave(self, address: str, event: tuple[float, Any]) -> None:
        """A worker was told to end (SIGTERM, its wall time), and says so before it goes: to the
        scheduler it has then died."""
        _, message = event
        if isinstance(message, dict) and message.get("action") == "closing-worker":
            self._events.put(("leaving", address))

    def _next_event(self) -> Iterator[Finished[Item] | Killer[Item]]:
        try:
            kind, what = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            kind, what = "nothing", None
        if kind == "done":
            self._fetch(what)
        elif kind == "fetched":
            yield from self._fetched(*what)
        elif kind == "raised":
            self._raised(*what)
        elif kind == "leaving" and what in self._processes:
            self._processes[what].leaving, self._processes[what].ready = True, False
        elif kind == "add-worker":
            self._add(what["worker"])
        elif kind == "remove-worker":
            yield from self._remove(what["worker"], what["expected"])
        if time.monotonic() - self._looked > LOOK_SECONDS:
            yield from self._look()

    def _look(self) -> Iterator[Finished[Item] | Killer[Item]]:
        """Who is there, whatever the events said: they tell of nothing before they were asked
        for."""
        self._looked = time.monotonic()
        there = self.client.scheduler_info(n_workers=-1)["workers"]
        for address, about in there.items():
            self._add(address, about.get("name"))
        gone = self._processes.keys() - there.keys()
        for address in gone & self._gone:  # still: the event that says why has had its time
            yield from self._remove(address, expected=False)
        self._gone = gone

    def _add(self, address: str, name: Any = None) -> None:
        if address in self._processes:
            return
        if name is None:
            there = self.client.scheduler_info(n_workers=-1)["workers"]
            if address not in there:
                return  # gone already
            name = there[address].get("name")
        name = address if name is None else str(name)
        member = self.members.setdefault(name, Member(name))
        self._processes[address] = _Process(member)
        self._unborn[address] = member
        self._exits.watch(address)
        self.client.subscribe_topic(address, functools.partial(self._on_leave, address))
        if not (member.refused or self._halted):
            self._submit(address, self._admit, ())

    def _remove(self, address: str, expected: bool) -> Iterator[Killer[Item]]:
        process = self._processes.pop(address, None)
        if process is None:
            return
        with contextlib.suppress(ValueError, OSError, CommClosedError):
            self.client.unsubscribe_topic(address)
        member, expected = process.member, expected or process.leaving
        if expected or self._stopping():
            member.left += 1
        else:
            member.deaths += 1
            self._say(f"worker {member.name} died")
            if address in self._unborn and not member.refused:
                self._stillborn += 1
                member.stillborn += 1
        for key, task in process.tasks.items():
            self._forget(key, task)
            if expected:
                self._todo.extendleft(reversed(task.items))
            elif not self._stopping():
                yield from self._suspect(task.items)

    def _hear_exits(self) -> None:
        """A nanny's word may come before or after the scheduler's that its worker is gone."""
        for address, fault in self._exits.told():
            member = self._unborn.pop(address, None)
            if member is None or member.refused or not fault or self._stopping():
                continue
            self._faults[fault] += 1
            member.faults[fault] += 1
            if member.faults[fault] >= FAULTS:
                self._refuse(
                    member, f"it ended by itself {FAULTS} times before it had work, with {fault}"
                )

    def _suspect(self, items: Iterable[Item]) -> Iterator[Killer[Item]]:
        for item in items:
            self._deaths[item] += 1
            if self._deaths[item] >= DEATHS:
                yield Killer(item, f"{DEATHS} workers were killed at it (out of memory?)")
            else:
                self._suspects.append(item)

    def _fetch(self, future: Future) -> None:
        """A task's result on its way here, while others are looked at: its worker may die of it."""
        if future.key not in self._where:
            return  # its worker was removed, and the items are somewhere else
        if future.status == "cancelled":
            raise lost()  # and connected again since: the scheduler has forgotten what it was given
        if future.status not in ("finished", "error"):
            return  # its worker is about to be removed
        assert self.client.loop is not None  # it is connected
        self.client.loop.add_callback(self._bring, future)

    async def _bring(self, future: Future) -> None:
        """In the client's own thread."""
        try:
            result = await self.client.gather(future, asynchronous=True)
        except (CommClosedError, CancelledError, asyncio.CancelledError):
            # Its worker is gone, or the scheduler, and that will be said; or it is tried again.
            await asyncio.sleep(LOOK_SECONDS)
            self._events.put(("done", future))
        except Exception as error:
            self._events.put(("raised", (future, error)))
        else:
            self._events.put(("fetched", (future, result)))

    def _raised(self, future: Future, error: Exception) -> None:
        if future.key in self._where:
            self._failed(self._processes[self._where[future.key]], future.key, error)

    def _fetched(self, future: Future, result: Any) -> Iterator[Finished[Item]]:
        address = self._where.get(future.key)
        if address is None:
            return  # its worker was removed, and the items are somewhere else
        process = self._processes[address]
        task = process.tasks.pop(future.key)
        self._forget(future.key, task)
        if task.items:
            process.alone = False
            for item in task.items:
                self._deaths.pop(item, None)
            yield Finished(process.member, list(task.items), result)
        elif reason := self._judge(result):
            self._refuse(process.member, reason)
        else:
            process.ready, self._stillborn = True, 0
            self._unborn.pop(address, None)
            self._faults.clear()
            process.member.faults.clear()
            process.member.since = process.member.since or time.monotonic()

    def _failed(self, process: _Process, key: Key, error: Exception) -> None:
        """The work raised what it should not: a fault of the worker's, where others can do it."""
        task = process.tasks.pop(key)
        self._forget(key, task)
        text = str(error).splitlines()[0] if str(error) else ""
        reason = text if isinstance(error, PcmciError) else f"{type(error).__name__}: {text}"
        self._refuse(process.member, reason)
        for item in task.items:
            self._deaths[item] += 1
            if self._deaths[item] >= DEATHS:
                raise ClusterError(
                    f"the work failed on {DEATHS} workers, the last time with {reason}"
                ) from error
        self._suspects.extend(task.items)

    def _refuse(self, member: Member, reason: str) -> None:
        member.refused = reason
        self._say(f"worker {member.name} gets no work: {reason}")
        for process in self._processes.values():
            process.ready = process.ready and process.member is not member

    # --- who gets what ----------------------------------------------------------------------------

    def _feed(self) -> None:
        """Every worker gets one task, then every one a second, as far as there are items."""
        ready = {a: p for a, p in self._processes.items() if p.ready and not p.alone}
        for depth in range(self._tasks_a_worker):
            for address, process in ready.items():
                if len(process.tasks) > depth or process.alone:
                    continue
                if self._suspects:
                    if not process.tasks:
                        process.alone = True
                        self._submit(address, self._work, (self._suspects.popleft(),))
                elif self._todo:
                    # Towards the end tasks get smaller, so that all workers finish together.
                    share = math.ceil(len(self._todo) / (len(ready) * self._tasks_a_worker))
                    count = min(self._size, math.ceil(share / self._least) * self._least)
                    items = tuple(islice(self._todo, count))
                    for _ in items:
                        self._todo.popleft()
                    self._submit(address, self._work, items)

    def _submit(self, address: str, function: Callable[..., Any], items: tuple[Item, ...]) -> None:
        key = f"pcmci-{self._token}-{uuid.uuid4().hex}"
        arguments = [list(items)] if items else []
        future = self.client.submit(
            function, *arguments, key=key, workers=[address], allow_other_workers=False, pure=False
        )
        self._where[key] = address
        self._processes[address].tasks[key] = _Task(future, items)
        future.add_done_callback(lambda done: self._events.put(("done", done)))

    def _tasks(self) -> Iterator[_Task]:
        return (task for process in self._processes.values() for task in process.tasks.values())

    def _in_flight(self) -> bool:
        """Whether a worker has items. A question that waits for its answer keeps nobody."""
        return any(task.items for task in self._tasks())

    def _forget(self, key: Key, task: _Task) -> None:
        self._where.pop(key, None)
        if task.future.status == "pending":
            with contextlib.suppress(OSError, CommClosedError):
                task.future.cancel()
        task.future.release()

    # --- how it ends ------------------------------------------------------------------------------

    def _halt(self) -> None:
        if not self._halted:
            self._halted = True
            self.client.run(halt, self._token, wait=False, on_error="ignore")

    def _check_workers(self) -> None:
        """One can work, or is waited for: for so long, and not where it would be for nothing."""
        if self._in_flight() or any(process.ready for process in self._processes.values()):
            self._patience.over()
            return
        usable = [p for p in self._processes.values() if not p.member.refused]
        there = {process.member.name for process in self._processes.values()}
        # Killed, and not back yet: its nanny, or whoever manages machines, starts it again.
        away = [m for name, m in self.members.items() if name not in there and not m.refused]
        if self._processes and not usable and not any(one.deaths for one in away):
            first = next(p.member for p in self._processes.values())
            raise NoWorker(
                f"none of {len(self._processes)} workers may do the work; worker {first.name}: "
                f"{first.refused}"
            )
        check_faults(self._faults, len(usable))
        nobody = "" if usable else NONE_USABLE if self._processes else NOBODY
        self._patience.wait(nobody, self._stillborn)

    def _check_connection(self) -> None:
        if self.client.status != "running":
            raise lost()

    def _let_go(self) -> None:
        if self.client.status != "running":
            return
        with contextlib.suppress(OSError, CommClosedError, TimeoutError, ValueError):
            self.client.unsubscribe_topic("all")
            if pending := [task.future for task in self._tasks()]:
                self._halt()
                self.client.cancel(pending)
