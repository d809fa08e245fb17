"""A place that is not on this machine's disks, with the few methods of a Path that readers use.

pathlib cannot hold a URL: it takes a slash away. Whoever reads annotations or looks for videos
works with a `Place`, be it here or there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Self

from pcmci.errors import UsageError
from pcmci.remote import objects, web
from pcmci.remote.address import BUCKETS, WEB, Address


class Url(Address):
    """An address as `place` made it, whose server can be asked.

    Asking raises RemoteError where the server cannot be reached or refuses.
    """

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return bool(self._server.is_file(self))

    def is_dir(self) -> bool:
        """Whether anything lies under it; of a web server, whether it shows an index page."""
        return bool(self._server.is_dir(self))

    def files(self) -> Iterator[tuple[str, Self]]:
        """Everything under it, however deep: the path from here, and the place."""
        yield from self._server.files(self)

    def read(self, most: int) -> bytes:
        """The first `most` bytes."""
        content: bytes = self._server.read(self, most)
        return content

    def download(self, file: BinaryIO) -> None:
        """All of it, into an empty file."""
        self._server.download(self, file)

    @property
    def _server(self) -> ModuleType:
        return web if self.scheme in WEB else objects


Place = Path | Url


def place(text: str | os.PathLike[str] | Url) -> Place:
    """A path, or the URL where `text` is one. Raises UsageError for a URL that cannot be used."""
    if isinstance(text, Url):
        return text
    text = os.fspath(text)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(/+)([^/?#]*)", text)
    if not match:
        return Path(text)
    scheme, slashes, host = match[1].lower(), match[2], match[3]
    if scheme not in (*BUCKETS, *WEB):
        if slashes != "//":
            return Path(text)
        raise UsageError(f"{text}: URLs begin with s3://, gs://, https:// or http://")
    if slashes != "//" or not host:
        raise UsageError(
            f"{text}: right would be {scheme}://{'host' if scheme in WEB else 'bucket'}/…, and no "
            "Path, which takes a slash away"
        )
    if "@" in host:
        raise UsageError(
            f"{scheme}://…@{host.rpartition('@')[2]}: no password belongs into a URL; it comes "
            "from the environment, or from ~/.netrc for https"
        )
    return Url(f"{scheme}://{text[match.start(3) :].rstrip('/')}")
