"""A video beside its twins: the same in everything but one variable."""

from __future__ import annotations

from collections.abc import Sequence

from pcmci.heads.scoring.twins import find_twins


def family(video: str, ids: Sequence[str], splits: Sequence[str]) -> tuple[str, ...]:
    """The other videos that differ from a video by one variable or more (`find_twins`): the one
    that all are twins of first, then by split as they come. Empty where there are none.

    ids, splits: [n] of the store.
    """
    twins_of: dict[str, list[str]] = {}
    for twins in find_twins(ids, splits).values():
        for row, twin_row in zip(twins.rows, twins.twin_rows, strict=True):
            twins_of.setdefault(ids[row], []).append(ids[twin_row])
    for original, others in twins_of.items():
        if video in (original, *others):
            return tuple(one for one in (original, *others) if one != video)
    return ()
