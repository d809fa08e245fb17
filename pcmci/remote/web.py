"""Files of a web server, by fsspec: found by its index pages, and read.

Passwords come from ~/.netrc, proxies from the environment.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pcmci.errors import RemoteError
from pcmci.remote.address import Address, AnyAddress
from pcmci.remote.extra import need
from pcmci.remote.failure import NotThere, failure

WAITS = (0.2, 1.0, None)
"""Seconds after each try of a download; after the last one there is none."""

DEEPEST = 32
"""Folders within folders; a server that links a folder to itself has no end."""


def is_file(url: Address) -> bool:
    try:
        with _errors(url, "cannot be read"):
            _system(url).info(str(url))
    except NotThere:
        return False
    return True


def is_dir(url: Address) -> bool:
    try:
        _links(url)
    except NotThere:
        return False
    return True


def files(url: AnyAddress) -> Iterator[tuple[str, AnyAddress]]:
    """Everything that index pages name under `url`."""
    folders = [("", url)]
    while folders:
        prefix, folder = folders.pop()
        for name in sorted(_links(folder)):
            if not name.endswith("/"):
                yield prefix + name, folder / name
            elif prefix.count("/") < DEEPEST:
                folders.append((prefix + name, folder / name.rstrip("/")))


def read(url: Address, most: int) -> bytes:
    content = _Beginning(most)
    with contextlib.suppress(_Enough):
        download(url, content)
    return content.getvalue()[:most]


def download(url: Address, file: BinaryIO) -> None:
    for wait in WAITS:
        file.seek(0)
        file.truncate()
        try:
            with _errors(url, "cannot be read"):
                _system(url).get_file(str(url), file)
            return
        except NotThere:
            raise
        except RemoteError:
            if wait is None:
                raise
            time.sleep(wait)


def _links(url: Address) -> set[str]:
    """The names that an index page links to, right under it; those of folders end in a slash."""
    here = urlsplit(f"{url}/").path
    found = set()
    with _errors(url, "cannot be listed"):
        for link in _system(url).ls(f"{url}/", detail=False):
            parts = urlsplit(link)
            name = unquote(parts.path.removeprefix(here))
            inside = parts.path.startswith(here) and parts.netloc == url.bucket
            if inside and name.strip("/") and "/" not in name[:-1] and not parts.query:
                found.add(name)
    return found - {"../", "./"}


def _system(url: Address) -> Any:
    aiohttp, http = need("aiohttp", url), need("fsspec.implementations.http", url)
    # A film may take longer than aiohttp's five minutes; a server that says nothing may not.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    return http.HTTPFileSystem(
        use_listings_cache=False, client_kwargs={"timeout": timeout, "trust_env": True}
    )


class _Enough(Exception):
    """All that was wanted is there."""


class _Beginning(io.BytesIO):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, part: Any) -> int:
        written = super().write(part)
        if self.tell() >= self._most:
            raise _Enough
        return written


@contextlib.contextmanager
def _errors(url: Address, problem: str) -> Iterator[None]:
    aiohttp = need("aiohttp", url)
    try:
        yield
    except FileNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientConnectionError | TimeoutError):
            raise failure(RemoteError, url, problem, _reason(cause)) from error
        raise failure(NotThere, url, problem, "it is not there") from error
    except aiohttp.ClientResponseError as error:
        kind = NotThere if error.status in (404, 410) else RemoteError
        raise failure(kind, url, problem, _reason(error)) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise failure(RemoteError, url, problem, _reason(error)) from error


def _reason(error: BaseException) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError):
        return f"the server answers {error.status}"
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "the server cannot be reached"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the server breaks off"
    return type(error).__name__
