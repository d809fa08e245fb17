"""What is odd about the labels that somebody gave, before a text encoder reads them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

from pcmci.errors import AnnotationError
from pcmci.extract.datasets.files import is_plain, some
from pcmci.extract.datasets.label_text import readable
from pcmci.plain import is_utf8

NO_LABEL = frozenset(
    ("nan", "none", "null", "nil", "na", "n/a", "#n/a", "<na>", "nat", "-", "--", "?")
)
"""What programs write into a cell that is empty."""


def check_label(label: str, place: str) -> None:
    """Raises AnnotationError for a label that has no words, or more than words."""
    if not is_utf8(label):
        raise AnnotationError(f"{place}: the label {label!r} is not UTF-8")
    if not is_plain(label):
        raise AnnotationError(f"{place}: the label {label!r} has control characters")
    if not readable(label):
        raise AnnotationError(
            f"{place}: the label {label!r} has no words, which a text encoder would read"
        )


def label_notes(kind: str, labels: Iterable[str]) -> list[str]:
    """Lines about labels that may not be meant so. kind: `activity` or `steps`. labels: one a
    video that has it."""
    count = Counter(labels)
    notes = []
    for texts in _read_alike(count).values():
        if len(texts) > 1:
            # forms of Unicode look the same
            form = len({unicodedata.normalize("NFC", text) for text in texts}) < len(texts)
            shown = " and ".join(map(ascii if form else repr, texts))
            notes.append(f"{kind}: {shown} are {len(texts)} labels with the same text")
    for label in sorted(count):
        if label.casefold() in NO_LABEL:
            notes.append(
                f"{kind}: {label!r} ({count[label]:,} videos) is taken for a label; leave the cell "
                "empty where there is none"
            )
    numbers = [label for label in sorted(count) if label.replace(".", "", 1).isdigit()]
    if numbers:
        notes.append(
            f"{kind}: {len(numbers):,} of {len(count):,} labels are numbers ({some(numbers)}), "
            "which tell a text encoder nothing; right would be words"
        )
    return notes


def _read_alike(labels: Iterable[str]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for label in sorted(labels):
        text = unicodedata.normalize("NFC", readable(label)).casefold()
        alike.setdefault(text, []).append(label)
    return alike
