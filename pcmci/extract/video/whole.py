"""Whether a file is all there: what its outermost boxes declare, against what lies on the disk.

A demuxer reads a file that was cut off up to its end and says nothing. But sizes lie, too: a file
written to a pipe has none, and some writers count wrong. So what is missing matters where a frame
lies in it, which the scanned file tells.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.video.stream import VideoStream

from pcmci.errors import VideoError

UNKNOWN = (0, 0xFFFFFFFF)
"""What a RIFF says of its size where that was not known: it was written to a pipe."""

CLUSTER = 0x1F43B675
"""The Matroska element in which frames lie."""

SMALLEST_CLUSTER = 16
"""Bytes: fewer hold no frame, with the headers that it needs."""


def cut_off(path: Path | str) -> str:
    """The outermost boxes declare more bytes than the file has: how many, in words; else "".

    Raises VideoError for an empty file.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise VideoError("the file is empty")
    with open(path, "rb") as file:
        head = file.read(4096)
        if head[:4] == b"\x1aE\xdf\xa3":
            end = _matroska_segment(head)[1]
        elif head[:4] == b"RIFF":
            # Eight bytes short of the end, but some writers counted them in.
            end = int.from_bytes(head[4:8], "little")
            end = 0 if end in UNKNOWN else end
        else:
            end = max((end for _, end in _mp4_boxes(file, size)), default=0)
    return f"cut off: {end - size} of {end} bytes are missing" if end > size else ""


def frames_are_lost(
    path: Path | str, container: InputContainer, stream: VideoStream, end: float
) -> bool:
    """Whether a frame lies in what a file that `cut_off` speaks of lacks; also where nothing tells.

    container, stream: read to the end. end: seconds, when the last frame that is there ends.
    """
    size = os.path.getsize(path)
    name = container.format.name.split(",")[0]
    if name == "mov":
        return _mp4_lost(path, size, container, stream)
    if name == "avi":
        return not 0 < stream.frames <= len(stream.index_entries)
    if name == "matroska":
        return _matroska_lost(path, size) and not _reaches(container, stream, end)
    return True


def _mp4_boxes(file: BinaryIO, size: int) -> list[tuple[bytes, int]]:
    """Names of the outermost boxes, and where each ends; none for another kind of file
    (ISO 14496-12: length, name, content)."""
    found: list[tuple[bytes, int]] = []
    end = 0
    for _ in range(100_000):  # enough for a day of fragments
        file.seek(end)
        box = file.read(16)
        length, name = int.from_bytes(box[:4], "big"), box[4:8]
        if end == 0 and name not in (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return []
        if length == 1:
            length = int.from_bytes(box[8:], "big")
        follows = end + length <= size or name in (b"moov", b"mdat", b"moof")
        if len(box) < 8 or length < 8 or not follows:
            break  # the end, a box up to the end (length 0), or bytes that are no box
        end += length
        found.append((name, end))
    return found


def _mp4_lost(path: Path | str, size: int, container: InputContainer, stream: VideoStream) -> bool:
    with open(path, "rb") as file:
        names = [name for name, _ in _mp4_boxes(file, size)]
    if names[-1] == b"moof":
        return True
    # The index of fragments is of those alone that are there. If the last one has all samples of
    # all streams, it was not cut off: its box lies.
    streams = container.streams if b"moof" in names else (stream,)
    entries = [one for each in streams for one in each.index_entries]
    return not entries or any(one.pos + one.size > size for one in entries)


def _matroska_lost(path: Path | str, size: int) -> bool:
    """Whether the file may end before a cluster does, or before another one begins."""
    with open(path, "rb") as file:
        at, end = _matroska_segment(file.read(4096))
        name = 0
        while at < size:
            file.seek(at)
            head = file.read(12)
            name, width = _matroska_number(head, 0)
            if not width or width >= len(head):
                return True
            length, more = _matroska_number(head, width)
            length -= 1 << 7 * more
            if not more or length == (1 << 7 * more) - 1:
                return True
            at += width + more + length
    return end - at >= SMALLEST_CLUSTER or (name == CLUSTER and at > size)


def _reaches(container: InputContainer, stream: VideoStream, end: float) -> bool:
    """Whether the last frame ends where the film does, by what a Matroska file says of it."""
    says = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = says.split(":")
        duration = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        duration = (container.duration or 0) / 1e6
    return 0 < duration <= end


def _matroska_number(head: bytes, at: int) -> tuple[int, int]:
    """A number's bytes as they are, and how many, 0 for none; the first set bit says how many
    (RFC 8794)."""
    if at >= len(head) or not head[at]:
        return 0, 0
    width = 9 - head[at].bit_length()
    return int.from_bytes(head[at : at + width], "big"), width


def _matroska_segment(head: bytes) -> tuple[int, int]:
    """Where the Segment's content begins and ends, 0 and 0 where it does not say."""
    at = 0
    while at + 16 < len(head) and head[at]:
        name, width = _matroska_number(head, at)
        at += width
        length, width = _matroska_number(head, at)
        at += width
        length -= 1 << 7 * width
        if not width or length == (1 << 7 * width) - 1:
            return 0, 0  # all ones: not known when it was written
        if name == 0x18538067:
            return at, at + length
        at += length
    return 0, 0
