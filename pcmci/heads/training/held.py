"""Whether somebody is at work in a folder: told by a lock on it, which goes with its process.

The lock is on the folder itself, so that nothing lies in it that is not to stay there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Say so for the time of the block; the folder may be renamed meanwhile. A file system without
    locks (some network ones) says nothing, and nobody is kept from working."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            # Shared: some network file systems refuse the other one on what is open for reading.
            # Whoever looks has it for a moment only.
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool | None:
    """Whether a process has it. None where that cannot be told: on a file system without locks,
    without the right to look, or where the folder is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False
