"""What every data set's parser returns, whatever its files look like."""

from __future__ import annotations

from dataclasses import dataclass

from pcmci.cache.schema import LabelSet
from pcmci.remote.url import Place


@dataclass(frozen=True)
class Segment:
    """One annotated step: `label` from `start` to `end`, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Video:
    """One video as its data set describes it.

    id: the data set's own id, unique, never a path.
    path: where the file lies, here or under a URL, or None where the annotation names a video that
        is not there.
    split: `train`, `val`, `test`, or a data set's further test splits.
    activity: the one label of the whole video, or None.
    steps: the names of the steps that occur in it, each once, in the label set's order.
    segments: the annotated steps in time; () where the data set has none.
    session, group: see `pcmci.cache.schema.VideoTable`; "" means the video itself.
    """

    id: str
    path: Place | None
    split: str
    activity: str | None
    steps: tuple[str, ...]
    segments: tuple[Segment, ...] = ()
    session: str = ""
    group: str = ""


@dataclass(frozen=True)
class Dataset:
    """A data set's videos with the label sets that their names refer to.

    notes: lines for the user about what was found (names of subsets, videos left out by rule).
    """

    name: str
    videos: tuple[Video, ...]
    activity: LabelSet | None
    steps: LabelSet | None
    notes: tuple[str, ...] = ()
