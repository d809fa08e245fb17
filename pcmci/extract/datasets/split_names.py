"""How people spell `train`, `val` and `test`."""

from __future__ import annotations

import re
from collections.abc import Iterable

SPELLINGS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst"),
}

_MEANT = {spelling: split for split, all_ in SPELLINGS.items() for spelling in all_}
_SET = re.compile(r"(?<=\w)[ _-]*(set|split|data|videos)$")
_SHIFT = re.compile(r"shift(-[\w-]+)", re.IGNORECASE)


def split_of(text: str) -> str | None:
    """The split that `text` names, in any case: `Training`, `val_set`, `TEST`; None for others.

    `shift-NAME`, a further test split, keeps its name's case.
    """
    text = text.strip()
    if shift := _SHIFT.fullmatch(text):
        return f"shift{shift[1]}"
    name = text.casefold()
    return _MEANT.get(name) or _MEANT.get(_SET.sub("", name))


def spelled_note(texts: Iterable[str]) -> tuple[str, ...]:
    """What was read as what, where it is not spelled as here."""
    read = sorted((text, split_of(text)) for text in set(texts) if split_of(text) != text)
    if not read:
        return ()
    return ("splits: " + ", ".join(f"{text!r} is read as {split}" for text, split in read),)
