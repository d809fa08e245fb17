"""Objects in a bucket, by obstore: listed, read, written, and written on a condition.

Credentials, region and endpoint come from the environment as obstore reads them: AWS_…, GOOGLE_….
obstore itself tries again what is worth it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO

from pcmci.errors import RemoteError
from pcmci.remote.address import Address, AnyAddress
from pcmci.remote.extra import need
from pcmci.remote.failure import Conflict, NotThere, failure

PART = 8 * 2**20
"""Bytes of one request of a download: obstore ends a request after half a minute."""

RETRY_SECONDS = 60
"""For one request with all that follows it when it fails; see also `pcmci.cache.writing.lease`."""


@dataclass(frozen=True)
class Facts:
    """size in bytes. version: which of all that were written there. modified: by the server's
    clock."""

    size: int
    version: dict[str, str]
    modified: datetime


def is_file(url: Address) -> bool:
    try:
        facts(url)
    except NotThere:
        return False
    return True


def is_dir(url: Address) -> bool:
    return next(files(url), None) is not None


def files(url: AnyAddress) -> Iterator[tuple[str, AnyAddress]]:
    """Everything under `url`, in no order."""
    with _errors(url, "cannot be listed"):
        for batch in need("obstore", url).list(_bucket(url), prefix=url.key or None):
            for entry in batch:
                name = entry["path"].removeprefix(url.key).lstrip("/")
                if name:  # an object may be called as its folder
                    yield name, url / name


def names(url: Address) -> list[str]:
    """Of the objects right under `url`."""
    with _errors(url, "cannot be listed"):
        found = need("obstore", url).list_with_delimiter(_bucket(url), prefix=url.key or None)
        return [entry["path"].rpartition("/")[2] for entry in found["objects"]]


def facts(url: Address) -> Facts:
    with _errors(url, "cannot be read"):
        found = need("obstore", url).head(_bucket(url), url.key)
        return Facts(found["size"], _version(found), found["last_modified"])


def read(url: Address, most: int | None = None) -> bytes:
    """All of it, or its first `most` bytes."""
    if most is not None and (size := facts(url).size) > most:
        return read_range(url, 0, min(most, size))
    with _errors(url, "cannot be read"):
        return bytes(need("obstore", url).get(_bucket(url), url.key).bytes())


def read_with_facts(url: Address) -> tuple[bytes, Facts]:
    """All of it, and of which version it is."""
    with _errors(url, "cannot be read"):
        answer = need("obstore", url).get(_bucket(url), url.key)
        meta = answer.meta
        return bytes(answer.bytes()), Facts(meta["size"], _version(meta), meta["last_modified"])


def read_range(url: Address, first: int, size: int) -> bytes:
    """`size` bytes from `first` on; fewer where it ends before."""
    with _errors(url, "cannot be read"):
        try:
            return bytes(
                need("obstore", url).get_range(_bucket(url), url.key, start=first, length=size)
            )
        except Exception as error:
            if "status code: 416" in str(error):  # it ends before `first`
                return b""
            raise


def download(url: Address, file: BinaryIO) -> None:
    """Part by part, all of one version."""
    obstore, bucket = need("obstore", url), _bucket(url)
    found = facts(url)
    for first in range(0, found.size, PART):
        options: dict[str, Any] = {"range": (first, min(first + PART, found.size))}
        if "e_tag" in found.version:
            options["if_match"] = found.version["e_tag"]
        with _errors(url, "cannot be read"):
            part = obstore.get(bucket, url.key, options=options).bytes()
        file.write(part)


def write(url: Address, content: bytes) -> None:
    """The whole object; whoever reads it finds the old one or the new one."""
    with _errors(url, "cannot be written"):
        need("obstore", url).put(_bucket(url), url.key, content, use_multipart=False)


def write_new(url: Address, content: bytes) -> dict[str, str]:
    """Only where nothing is; returns the version. Raises Conflict where something is."""
    with _errors(url, "cannot be written"):
        return _version(
            need("obstore", url).put(
                _bucket(url), url.key, content, mode="create", use_multipart=False
            )
        )


def write_over(url: Address, content: bytes, version: dict[str, str]) -> dict[str, str]:
    """Only where that version still is; returns the new one. Raises Conflict otherwise."""
    with _errors(url, "cannot be written"):
        return _version(
            need("obstore", url).put(
                _bucket(url), url.key, content, mode=version, use_multipart=False
            )
        )


def delete(urls: Sequence[Address]) -> None:
    """All of one bucket; those that are not there too."""
    if urls:
        with _errors(urls[0], "cannot be deleted"):
            need("obstore", urls[0]).delete(_bucket(urls[0]), [url.key for url in urls])


def _version(found: Any) -> dict[str, str]:
    return {name: found[name] for name in ("e_tag", "version") if found.get(name)}


def _bucket(url: Address) -> Any:
    need("obstore.store", url)
    settings = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_"))}
    with _errors(url, "cannot be used"):
        return _opened(f"{url.scheme}://{url.bucket}", tuple(sorted(settings.items())))


@functools.lru_cache(8)
def _opened(root: str, settings: tuple[tuple[str, str], ...]) -> Any:
    """settings: those of the environment; others make another connection."""
    store = need("obstore.store", root)
    return store.from_url(
        root,
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )


@contextlib.contextmanager
def _errors(url: Address, problem: str) -> Iterator[None]:
    """obstore's errors, pages long, in one line that tells no secret."""
    exceptions = need("obstore.exceptions", url)
    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        what = "there is no such bucket" if "NoSuchBucket" in str(error) else "it is not there"
        raise failure(NotThere, url, problem, what) from error
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise failure(Conflict, url, problem, "it was changed meanwhile") from error
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise failure(RemoteError, url, problem, _reason(str(error))) from error


def _reason(text: str) -> str:
    text, _, details = text.partition("\n\nDebug source")
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    if "169.254.169.254" in text or "metadata.google" in text:
        return (
            "no credentials; right would be AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_SKIP_SIGNATURE=true for a public bucket, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    if code and code[1] == "NoSuchBucket":
        return "there is no such bucket"
    if status and status[1] in ("401", "403"):
        return f"access is denied ({code[1] if code else status[1]}): are AWS_… or GOOGLE_… right?"
    if status:
        return f"the server answers {status[1]}" + (f" ({code[1]})" if code else "")
    if "BadScheme" in details:
        return "its endpoint is http://, which AWS_ALLOW_HTTP=true would allow"
    if "kind: Connect" in details:
        return "the server cannot be reached"
    if "kind: Timeout" in details:
        return "the server does not answer in time"
    return re.sub(r"\w+://\S+", "…", " ".join(text.split()))[:160]
