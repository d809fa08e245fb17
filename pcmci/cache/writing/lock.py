"""One writer at a time: a lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pcmci.cache.nearby import beside
from pcmci.errors import StoreError
from pcmci.remote.url import Place


class StoreLocked(StoreError):
    """Somebody else is writing the store, or nobody can (a read-only folder)."""


class Lock(Protocol):
    """The right to write a store, held by one."""

    def check(self) -> None:
        """Raises StoreLocked where it was lost."""
        ...

    def release(self) -> None: ...

    def __enter__(self) -> Lock: ...

    def __exit__(self, *error: object) -> None: ...


class WriterLock:
    """Exclusive, by flock on `<store>.lock`, which holds the owner's process id and host.

    The file is left behind only by a process that died, and then holds nobody up.
    """

    def __init__(self, store: Path, shown: Place | None = None) -> None:
        """shown: what to call the store. Raises StoreLocked, naming the process that holds it."""
        self._path = beside(store, ".lock")
        try:
            self._file = self._acquire(shown or store)
        except OSError as error:
            raise StoreLocked(f"{shown or store} cannot be locked: {error.strerror}") from error
        # A forked child shares the lock: a killed parent's store would stay locked by it.
        os.register_at_fork(after_in_child=_closing(self))

    def _acquire(self, store: Place) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_at_path(file):
                    os.ftruncate(file, 0)
                    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                    return file
            except BlockingIOError:
                owner = os.pread(file, 300, 0).decode(errors="replace") or "another process"
                os.close(file)
                raise StoreLocked(f"{store} is being written by {owner}") from None
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _is_at_path(self, file: int) -> bool:
        """False where the last owner removed the file between our opening and locking it."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Nobody can have taken it over."""

    def release(self) -> None:
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Close this process's handle alone; the lock goes with the last one."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _closing(lock: WriterLock) -> Callable[[], None]:
    reference = weakref.ref(lock)

    def close() -> None:
        held = reference()
        if held is not None:
            held.close()

    return close
