"""A video from a server, whole, for as long as it is decoded.

Which frames are taken depends on every packet of a file, so all of it has to come anyway.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pcmci.errors import RemoteError, VideoError
from pcmci.remote.url import Url


class NoRoom(Exception):
    """The folder for temporary files is full: no fault of the video's."""


@contextlib.contextmanager
def fetched(url: Url, link: Path) -> Iterator[Path]:
    """Download a video; yields `link`, under which it can be opened until the block ends.

    The file itself has no name, so that nothing of it stays behind when this process is killed.
    link: not there yet; FFmpeg takes its suffix for a hint.
    Raises VideoError with the reason, NoRoom where the disk is full.
    """
    try:
        file = _downloaded(url)
    except RemoteError as error:
        raise VideoError(f"cannot be downloaded: {error.reason}") from error
    except OSError as error:
        raise NoRoom(
            f"{tempfile.gettempdir()}: a video is downloaded to there, {error.strerror}; TMPDIR "
            "names another folder"
        ) from error
    with file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        yield link


def _downloaded(url: Url) -> BinaryIO:
    file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115, the caller closes it
    try:
        url.download(file)
        file.flush()
    except BaseException:
        with contextlib.suppress(OSError):  # the disk is still full
            file.close()
        raise
    return file
