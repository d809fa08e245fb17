"""The things that labels speak of: words of a list that stand in their texts. No parser looks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from pcmci.cache.schema import LabelSet
from pcmci.errors import UsageError
from pcmci.extract.datasets.files import read_text
from pcmci.plain import plain
from pcmci.remote.url import Place


def entity_words(path: Place) -> list[str]:
    """A word, or several that belong together, a line; empty lines and those that begin with # are
    passed over. In the order of the file, each once. Raises AnnotationError where it cannot be
    read, UsageError where it holds none."""
    lines = (" ".join(line.split()).lower() for line in read_text(path).splitlines())
    words = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not words:
        raise UsageError(f"--entities {path}: it holds no words; a noun a line is expected")
    return words


def entities_in(texts: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """The words, in their order, that stand in any of the texts as whole words."""
    together = "\n".join(" ".join(text.split()).lower() for text in texts)
    return tuple(w for w in words if re.search(rf"(?<!\w){re.escape(w)}(?!\w)", together))


def with_entities(
    activity: LabelSet | None, steps: LabelSet | None, words: Sequence[str]
) -> tuple[LabelSet | None, LabelSet | None]:
    """Both label sets with the entities of their texts. Raises UsageError where neither has any."""
    found = [
        one and dataclasses.replace(one, entities=entities_in(one.texts, words))
        for one in (activity, steps)
    ]
    if not any(one and one.entities for one in found):
        raise UsageError(
            f"--entities: no label's text holds {plain(', '.join(words[:3]))} or any other of its "
            f"{len(words)} words"
        )
    return found[0], found[1]
