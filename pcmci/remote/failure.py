"""How a server fails."""

from __future__ import annotations

from pcmci.errors import RemoteError


class NotThere(RemoteError):
    """The server was reached, and has no such thing."""


class Conflict(RemoteError):
    """What was to be written on a condition was there already, or was not as expected."""


def failure(kind: type[RemoteError], url: object, problem: str, reason: str) -> RemoteError:
    """`kind`, for `s3://b/x`, `cannot be read`, `it is not there`."""
    return kind(f"{url} {problem}: {reason}", reason)
