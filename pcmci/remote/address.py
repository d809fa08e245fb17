"""What a URL says, without asking anybody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

BUCKETS = ("s3", "gs")
"""Object storage, which obstore reads and writes."""

WEB = ("https", "http")
"""Web servers, which fsspec reads."""


@dataclass(frozen=True, order=True)
class Address:
    """`s3://bucket/a/b`, `gs://bucket/a/b` or `https://host/a/b`, and its parts."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Self:
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
    def parent(self) -> Self:
        return self._at(self._path.rpartition("/")[0])

    def with_name(self, name: str) -> Self:
        return self.parent / name

    @property
    def _path(self) -> str:
        return urlsplit(self.text).path if self.scheme in WEB else f"/{self.key}".rstrip("/")

    def _at(self, path: str) -> Self:
        """Another path there. What follows a `?`, as a signature, stays."""
        if self.scheme in WEB:
            return type(self)(urlunsplit(urlsplit(self.text)._replace(path=path)))
        return type(self)(f"{self.scheme}://{self.bucket}{path}")


AnyAddress = TypeVar("AnyAddress", bound=Address)
