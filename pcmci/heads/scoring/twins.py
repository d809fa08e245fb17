"""Which videos are twins: the same in everything but one variable.

A split holds twins where each of its videos is called `<id>_<split>` and `<id>` is a video of
another split: `P08003_cam2_tea_shift-h` is the twin of `P08003_cam2_tea`. Names are all that it
takes, so that stores, runs and predictions of before have twins as well, and whoever imports
features has them by calling videos so. The split's name says what differs: `shift-h` the variable
h, `cause` what is done (a causal twin), any other name itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

CAUSE = "cause"
"""The split of the causal twins: another performance, all else the same."""

_SHIFT = "shift-"


@dataclass(frozen=True)
class Twins:
    """A split whose videos are twins of those of another one.

    split, of: the twins' and the other's name. variable: what differs. rows, twin_rows: [m] places
    of the videos and of their twins, in the order of the videos.
    """

    split: str
    of: str
    variable: str
    rows: np.ndarray = field(repr=False)
    twin_rows: np.ndarray = field(repr=False)

    @property
    def causal(self) -> bool:
        """Whether they differ in what is done, and not in a confounder."""
        return self.variable == CAUSE


def variable_of(split: str) -> str:
    """What differs in twins of this split: `h` of `shift-h`."""
    return split.removeprefix(_SHIFT)


def find_twins(ids: Sequence[str], splits: Sequence[str]) -> dict[str, Twins]:
    """Split -> its twins, for every split that holds such; videos whose other half is not there are
    left out.

    ids, splits: [n] str, as a store or predictions have them.
    """
    ids, splits = [str(one) for one in ids], [str(one) for one in splits]
    place = {name: row for row, name in enumerate(ids)}
    members: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        members.setdefault(split, []).append(row)
    found = {}
    for split, rows in members.items():
        ending = f"_{split}"
        if not all(ids[row].endswith(ending) for row in rows):
            continue
        pairs = sorted(
            (place[stem], row)
            for row in rows
            if (stem := ids[row].removesuffix(ending)) in place and splits[place[stem]] != split
        )
        if pairs:
            videos, twins = (np.array(side) for side in zip(*pairs, strict=True))
            of = ", ".join(dict.fromkeys(splits[row] for row in videos))
            found[split] = Twins(split, of, variable_of(split), videos, twins)
    return found
