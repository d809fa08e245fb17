"""What a user called something, as it may be printed: a name is never a command to a terminal."""

from __future__ import annotations

import io
import sys
import unicodedata

_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs that turn the direction of writing: with them a name can show as another."""


def plain(text: object, keep: str = "") -> str:
    """`text` in one line, with escapes for what is no character: control characters (`\\x1b`),
    signs that turn the direction, and bytes of file names that are not UTF-8 (`\\xe9`).

    keep: characters that may stay, as the line breaks of a table's cell.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(_escape(c) if _acts(c) and c not in keep else c for c in text)


def plain_json(text: str) -> str:
    """A JSON document likewise, by JSON's own escapes: whoever reads it has the name that it was,
    a byte that is not UTF-8 as Python keeps it (`\\udce9`)."""
    return "".join(f"\\u{ord(c):04x}" if _acts(c) and c != "\n" else c for c in text)


def is_utf8(text: object) -> bool:
    """Whether it can be written: Python keeps other bytes of a file's name as lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in str(text))


def _acts(c: str) -> bool:
    return c in _TURNING or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")


def _escape(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # how Python keeps a byte that it could not decode
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode()


def print_anything() -> None:
    """Of this process: what a stream's encoding does not have is printed as an escape, and ends no
    command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
