"""What is asked of a file system or a server, whose refusals become errors of one line."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pcmci.errors import RemoteError, StoreError
from pcmci.remote.url import Place


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """What a server refuses, as a StoreError."""
    try:
        yield
    except RemoteError as error:
        raise StoreError(str(error)) from error


@contextlib.contextmanager
def writing(path: Place) -> Iterator[None]:
    """What the file system refuses, as a StoreError of one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def delete(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
