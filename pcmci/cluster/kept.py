"""What a worker's process keeps from one task to the next, because making it takes long."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None: ...


Thing = TypeVar("Thing", bound=Closable)


@dataclass
class _Entry(Generic[Thing]):
    """users: how many tasks use it now."""

    key: Hashable
    thing: Thing
    users: int = 0


class Kept(Generic[Thing]):
    """One thing for tasks of the same work, whichever thread they run in. One of other work, before
    this or beside it, goes when nobody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry[Thing]] = []

    @contextlib.contextmanager
    def using(self, key: Hashable, make: Callable[[], Thing]) -> Iterator[Thing]:
        """The one of this key; made when it is first asked for. Raises what `make` does."""
        with self._lock:
            entry = next((one for one in self._entries if one.key == key), None)
            if entry is None:
                for idle in [one for one in self._entries if not one.users]:
                    self._entries.remove(idle)
                    idle.thing.close()
                entry = _Entry(key, make())
                self._entries.append(entry)
            entry.users += 1
        try:
            yield entry.thing
        finally:
            with self._lock:
                entry.users -= 1
