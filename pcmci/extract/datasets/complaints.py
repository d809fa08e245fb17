"""All that is wrong with an annotation, said at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pcmci.errors import AnnotationError

MOST = 10
"""Of one kind of trouble a user mends all places after the first few."""


class Complaints:
    """Errors that are collected, so that whoever mends one sees the others.

    complaints = Complaints()
    for row in rows:
        with complaints.kept():
            ...  # what raises AnnotationError
    complaints.raise_any()
    """

    def __init__(self) -> None:
        self._all: list[str] = []

    def add(self, text: str) -> None:
        self._all.append(text)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """An AnnotationError ends the block and is kept."""
        try:
            yield
        except AnnotationError as error:
            self.add(str(error))

    def raise_any(self) -> None:
        """Raises one AnnotationError of all that was kept."""
        if not self._all:
            return
        more = f"; and {len(self._all) - MOST:,} more" if len(self._all) > MOST else ""
        raise AnnotationError("; ".join(self._all[:MOST]) + more)
