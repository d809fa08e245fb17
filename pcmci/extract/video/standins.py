"""For a damaged video, where that was asked for: which frames can be decoded, and for each that
cannot the nearest that can.

A frame can be decoded where the decoder neither fails on it nor marks it as damaged, and where that
holds for all that it may be predicted from, back to a picture that needs no other. What FFmpeg
conceals is no frame, and neither is what it predicts from that.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType, VideoFrame

from pcmci.extract.video.timeline import (
    NO_ORDER,
    NO_TIMES,
    Timeline,
    open_video,
    packets,
    to_be_shown,
)

Placed = tuple[int, VideoFrame]
"""Which packet of the file a frame was decoded from, and the frame."""


@dataclass
class Survey:
    """What decoding a whole damaged file gave.

    order: positions of the packets whose frames came, in the order in which they did. starts:
    those that need nothing from before. hurt: on which the decoder failed, or whose frame is
    damaged.
    """

    order: list[int] = field(default_factory=list)
    starts: set[int] = field(default_factory=set)
    hurt: set[int] = field(default_factory=set)


def survey(path: Path | str, timeline: Timeline) -> Survey:
    """Decode the whole file. Raises VideoError where it cannot be read at all."""
    found = Survey()
    came: set[int] = set()
    for position, frame in decode_all(path, timeline, found.hurt):
        if position in came:  # one of the two is made up
            found.hurt.add(position)
            continue
        came.add(position)
        found.order.append(position)
        # Not `frame.key_frame`: AV1 shows an old key frame where a newer picture was lost.
        is_key = timeline.key[position] or position == 0
        if is_key and frame.pict_type in (PictureType.I, PictureType.NONE):
            found.starts.add(position)
        if frame.is_corrupt:
            found.hurt.add(position)
    return found


def decode_all(path: Path | str, timeline: Timeline, hurt: set[int]) -> Iterator[Placed]:
    """Every frame that comes, damaged or not, and those too that an edit list leaves out. hurt:
    gets the positions of packets that are damaged, or on which the decoder fails.
    """
    with open_video(path) as (container, stream):
        codec = stream.codec_context
        codec.flags |= Flags.copy_opaque
        for position, packet in enumerate(itertools.chain(packets(container, stream), [None])):
            if packet is not None:
                if packet.is_corrupt:
                    hurt.add(position)
                packet = to_be_shown(packet)
                packet.opaque = position
            try:
                frames = codec.decode(packet)
            except av.FFmpegError:
                hurt.add(position)
                continue
            for frame in frames:
                # dav1d does not say which packet a frame is from.
                place = frame.opaque
                if not isinstance(place, int):
                    place = timeline.position(frame.pts)
                if place is not None:
                    yield place, frame


def sound_positions(timeline: Timeline, found: Survey) -> set[int]:
    """The packets whose frames can be decoded."""
    rank = {position: k for k, position in enumerate(found.order)}
    sound: set[int] = set()
    whole, start = False, 0  # whole: so is everything since the packet `start`
    for position, shown in enumerate(timeline.shown.tolist()):
        hurt = position in found.hurt or (shown and position not in rank)
        if not whole and not hurt and position in found.starts:
            whole, start = True, position
        whole = whole and not hurt
        # What is shown before the key frame that it follows may need what came before that one.
        if whole and position in rank and rank[position] >= rank[start]:
            sound.add(position)
    return sound


def in_order_of_presentation(timeline: Timeline, found: Survey, sound: set[int]) -> list[int]:
    """The positions of all packets that are frames of this file, decodable or not, as their frames
    follow each other.

    Where the file's times tell that of those that can be decoded, they tell it of the others.
    Elsewhere these stand where their packets do, which is right but for B-frames.
    """
    frames = np.flatnonzero(timeline.shown).tolist()
    if timeline.lead_in:  # the file lacks what these need, and never was longer
        first, time = timeline.first_key, timeline.pts[timeline.first_key]
        frames = [p for p in frames if p in sound or (p >= first and timeline.pts[p] >= time)]
    expected = set(frames)
    came = [position for position in found.order if position in expected]
    times = timeline.pts[[position for position in came if position in sound]]
    told = timeline.distrust not in (NO_TIMES, NO_ORDER) and bool((np.diff(times) > 0).all())
    if told and len(np.unique(timeline.pts[frames])) == len(frames):
        return sorted(frames, key=lambda position: int(timeline.pts[position]))
    return _by_place(frames, came, found.hurt, sound)


def _by_place(
    frames: Sequence[int], came: Sequence[int], hurt: set[int], sound: set[int]
) -> list[int]:
    """As they came; what did not come before the first of a later packet that did.

    A decoder that misses a picture gives the one before it too late, after B-frames that follow the
    missing one: what is sound and lies before the damage comes first.
    """
    missing = deque(sorted(set(frames) - set(came)))
    broken = sorted(hurt | set(missing))
    waiting = deque(position for position in came if position in sound)
    order: dict[int, None] = {}  # in the order of their first mention
    latest = -1
    for position in came:
        before = bisect.bisect_left(broken, position)
        if position not in sound and before:
            while waiting and (waiting[0] in order or waiting[0] < broken[before - 1]):
                order[waiting.popleft()] = None
        latest = max(latest, position)
        while missing and missing[0] < latest:
            order[missing.popleft()] = None
        order[position] = None
    return [*order, *missing]


def nearest(order: Sequence[int], sound: set[int], indices: np.ndarray) -> np.ndarray:
    """[m] int64: by position, the frames to take for those of these indices into `order`; of two
    that are as near the earlier one. At least one has to be sound."""
    there = np.array([k for k, position in enumerate(order) if position in sound], np.int64)
    after = np.searchsorted(there, indices)
    right = there[np.minimum(after, len(there) - 1)]
    left = there[np.maximum(after - 1, 0)]
    taken = np.where(np.abs(indices - left) <= np.abs(right - indices), left, right)
    return np.array(order, np.int64)[taken]
