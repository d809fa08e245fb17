"""A place that is not on this machine's disks, with the few methods of a Path that readers use.

pathlib cannot hold a URL: it takes a slash away. Whoever reads annotations or looks for videos
works with a `Place`, be it here or there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pcmci.errors import UsageError

BUCKETS = ("s3", "gs")
"""Object storage, which obstore reads and writes."""

WEB = ("https", "http")
"""Web servers, which fsspec reads."""


@dataclass(frozen=True, order=True)
class Url:
    """`s3://bucket/a/b`, `gs://bucket/a/b` or `https://host/a/b`, as `place` made it.

    Asking the server raises RemoteError where it cannot be reached or refuses.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Url:
        return self._at(f"{self._path}/{quote(name) if self.scheme in WEB else name}")

    @property
    def scheme(self) -> str:
        return self.text.partition(":")[0]

    @property
    def bucket(self) -> str:
        """The bucket, or the host with its port."""
        return self.text.partition("://")[2].partition("/")[0]

    @property
    def key(self) -> str:
        """What stands behind the bucket, without a slash before it."""
        return self.text.partition("://")[2].partition("/")[2]

    @property
    def name(self) -> str:
        last = self._path.rpartition("/")[2]
        return unquote(last) if self.scheme in WEB else last

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Url:
        return self._at(self._path.rpartition("/")[0])

    def with_name(self, name: str) -> Url:
        return self.parent / name

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return bool(self._server.is_file(self))

    def is_dir(self) -> bool:
        """Whether anything lies under it; of a web server, whether it shows an index page."""
        return bool(self._server.is_dir(self))

    def files(self) -> Iterator[tuple[str, Url]]:
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
        from pcmci.remote import objects, web

        return web if self.scheme in WEB else objects

    @property
    def _path(self) -> str:
        return urlsplit(self.text).path if self.scheme in WEB else f"/{self.key}".rstrip("/")

    def _at(self, path: str) -> Url:
        """Another path there. What follows a `?`, as a signature, stays."""
        if self.scheme in WEB:
            return Url(urlunsplit(urlsplit(self.text)._replace(path=path)))
        return Url(f"{self.scheme}://{self.bucket}{path}")


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
