"""From label names, as annotations spell them, to words for a text encoder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

# "makeBed" -> "make Bed"; "CDDrive" -> "CD Drive"; "RJ45Cable" -> "RJ45 Cable"
_NEW_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])")
# "dough2pan" -> "dough to pan"
_TWO = re.compile(r"(?<=[a-z])2(?=[a-z])")


def readable(name: str) -> str:
    """A label's words: `pour_dough2pan` is "pour dough to pan", `MakeRJ45Cable` "make RJ45 cable".

    Words are lower case but for acronyms, one space apart. What is readable stays as it is.
    """
    words = _NEW_WORD.sub(" ", name.replace("_", " ")).split()
    words = [word if word.isupper() and word != "A" else word.lower() for word in words]
    return _TWO.sub(" to ", " ".join(words))


def distinct(spellings: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """For each label the first of its spellings, plain to exact, that no other label has too."""
    labels = list(spellings)
    count = Counter(spelling for label in labels for spelling in set(label))
    return tuple(
        next((spelling for spelling in label if count[spelling] == 1), label[-1])
        for label in labels
    )
