"""When each frame of a video file is shown, found without decoding any of them.

Opening and scanning live here: what is a video at all, which packets become frames, in which
order they are shown, where decoding may start, and whether seeking in this file can be believed.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from pcmci.errors import VideoError

MAX_PIXELS = 8192 * 8192
"""A larger frame is refused: a header can claim any size, and memory is taken on its word."""

FORMATS = (
    "mov matroska avi mpegts mpeg mpegvideo m4v h264 hevc obu ivf flv asf ogg nut rm mxf dv wtv gif"
)
"""Demuxers for single video files, in FFmpeg's names. Others would follow a playlist to other
files (hls, concat), or show a text as a film (tty)."""

TIMED_FORMATS = ("mov", "matroska", "mpegts", "mpeg", "flv", "nut")
"""Containers that hold presentation times. In the others (AVI above all) FFmpeg makes them up
from the order of decoding, and with B-frames they are wrong."""


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream, with one decoder thread.

    Errors of FFmpeg, inside the block too, become a VideoError with FFmpeg's reason. PyAV throws
    FFmpeg's log away unless a program asks for it, so nothing is printed and nothing global is set.
    """
    try:
        _check_whole(path)
        with _open(path) as container:
            yield container, _video_stream(container)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"cannot be read: {reason(error)}") from error


def reason(error: av.FFmpegError | OSError) -> str:
    """What went wrong, without the path and the number."""
    return (error.strerror or type(error).__name__)[:120]


def _open(path: Path | str) -> InputContainer:
    try:
        return av.open(
            f"file:{os.fspath(path)}",  # or a name with a colon would be taken for a protocol
            metadata_errors="replace",
            options={
                "protocol_whitelist": "file",
                "format_whitelist": FORMATS.replace(" ", ","),
                "max_pixels": str(MAX_PIXELS),
            },
        )
    except (av.InvalidDataError, av.ArgumentError) as error:
        raise VideoError(f"not a video file: {reason(error)}") from error


def _video_stream(container: InputContainer) -> VideoStream:
    # A sound file's cover picture is a video stream to FFmpeg.
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise VideoError("no video stream")
    stream = films[0]
    if stream.codec_context is None:
        raise VideoError("no decoder for its video stream")
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(
            f"frames of {stream.width} x {stream.height} are too large, "
            f"at most {MAX_PIXELS} pixels are read"
        )
    stream.codec_context.thread_count = 1  # several videos are decoded at a time
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may change midway
    return stream


@dataclass(frozen=True)
class Timeline:
    """The packets of a video stream in the order of the file, which is the order of decoding.

    pts, dts: [n] int64, presentation and decoding time of each, in units of `time_base` seconds.
    sizes: [n] int32, bytes of each.
    key: [n] bool, decoding may start there.
    shown: [n] bool, it becomes a frame (an edit list leaves some out).
    lead_in: how many packets at the start a decoder may be unable to show, because they need
        frames from before the start of the file.
    distrust: why times and seeking cannot be believed, or an empty string.
    """

    pts: np.ndarray
    dts: np.ndarray
    sizes: np.ndarray
    key: np.ndarray
    shown: np.ndarray
    time_base: float
    lead_in: int
    distrust: str

    def __len__(self) -> int:
        """Frames to expect."""
        return int(self.shown.sum())

    @cached_property
    def times(self) -> np.ndarray:
        """[frames] int64: entry k is the presentation time of frame k."""
        return np.sort(self.pts[self.shown])

    @cached_property
    def _by_time(self) -> np.ndarray:
        return np.argsort(self.pts)

    def position(self, pts: int | None) -> int | None:
        """Which packet has this presentation time; None where no packet has."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.pts, pts, sorter=self._by_time))
        if at == len(self.pts):
            return None
        found = int(self._by_time[at])
        return found if self.pts[found] == pts else None

    @cached_property
    def starts(self) -> np.ndarray:
        """Positions of the packets where decoding may start, ascending."""
        return np.flatnonzero(self.key)

    def start_for(self, frame: int) -> int:
        """The index in `starts` of the last one from which `frame` can be decoded.

        It may neither come later in the file nor be shown later: the B-frames that follow a key
        frame and are shown before it (open GOP) need the key frame before.
        """
        time = self.times[frame]
        usable = (self.starts <= self.position(int(time))) & (self.pts[self.starts] <= time)
        return int(np.flatnonzero(usable)[-1])

    @property
    def first_key(self) -> int:
        """Position of the first packet where decoding may start; 0 where there is none."""
        return int(np.argmax(self.key))

    def is_orphan(self, pts: int | None) -> bool:
        """Whether the file does not have the key frame that a frame shown at this time needs."""
        return bool(self.first_key and pts is not None and pts < self.pts[self.first_key])


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """What is left of the stream, without empty packets: AVI says "the same frame again" with
    one, and a decoder would take it for the end. Raises VideoError."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except IndexError as error:  # PyAV's, where damage looks like a further stream
        raise VideoError("damaged data: a stream that is not declared") from error


def scan(container: InputContainer, stream: VideoStream) -> Timeline:
    """Read every packet, decode none. Memory: 22 bytes a packet.

    Raises VideoError where no packet becomes a frame.
    """
    pts, dts, sizes, key, shown = array("q"), array("q"), array("i"), bytearray(), bytearray()
    timed = True
    vp8 = stream.codec_context.codec.name == "vp8"
    for packet in packets(container, stream):
        timed = timed and packet.pts is not None
        pts.append(packet.pts or 0)
        dts.append(pts[-1] if packet.dts is None else packet.dts)
        sizes.append(packet.size)
        key.append(packet.is_keyframe)
        # VP8 may have a packet for a picture that is never shown, only referred to; a bit of the
        # frame header says so (RFC 6386, section 9.1).
        hidden = packet.is_discard or (vp8 and not memoryview(packet)[0] & 0x10)
        shown.append(not hidden)
    if not any(shown):
        raise VideoError("no frames")
    return _timeline(
        container,
        stream,
        timed,
        np.array(pts, np.int64),
        np.array(dts, np.int64),
        np.array(sizes, np.int32),
        np.frombuffer(key, np.bool_),
        np.frombuffer(shown, np.bool_),
    )


def _timeline(
    container: InputContainer,
    stream: VideoStream,
    timed: bool,
    pts: np.ndarray,
    dts: np.ndarray,
    sizes: np.ndarray,
    key: np.ndarray,
    shown: np.ndarray,
) -> Timeline:
    first_key = int(np.argmax(key))
    leads = np.arange(len(pts)) < first_key
    if timed:
        leads |= pts < pts[first_key]
    lead_in = int((leads & shown).sum())

    format_name = container.format.name.split(",")[0]
    codec = stream.codec_context
    reordered = bool((np.diff(pts) < 0).any())
    distrust = ""
    if not timed:
        distrust = "packets without a time"
    elif len(np.unique(pts)) < len(pts):
        distrust = "two packets of the same time"
    elif not key.any() or lead_in:
        distrust = "it does not start with a key frame"
    elif (np.diff(pts[key]) < 0).any():
        distrust = "key frames out of order"
    elif codec.has_b_frames != reordered or (
        # Matroska can wrap the stream of an AVI, with the AVI's times.
        reordered
        and (format_name not in TIMED_FORMATS or (codec.name, format_name) == ("mpeg4", "matroska"))
    ):
        distrust = "times that do not tell the order of its frames"
    return Timeline(pts, dts, sizes, key, shown, float(stream.time_base or 0), lead_in, distrust)


def _check_whole(path: Path | str) -> None:
    """Raise VideoError if the outermost boxes declare more bytes than the file has.

    A demuxer reads a file that was cut off up to its end and says nothing.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise VideoError("the file is empty")
    with open(path, "rb") as file:
        head = file.read(4096)
        if head[:4] == b"\x1aE\xdf\xa3":
            end = _matroska_end(head)
        elif head[:4] == b"RIFF":
            # Eight bytes short of the end, but some writers counted them in.
            end = int.from_bytes(head[4:8], "little")
        else:
            end = _mp4_end(file, size)
    if end > size:
        raise VideoError(f"cut off: {end - size} of {end} bytes are missing")


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last box ends, 0 for another kind of file (ISO 14496-12: length, name, content)."""
    end = 0
    for _ in range(100_000):  # enough for a day of fragments
        file.seek(end)
        box = file.read(16)
        length, name = int.from_bytes(box[:4], "big"), box[4:8]
        if end == 0 and name not in (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return 0
        if length == 1:
            length = int.from_bytes(box[8:], "big")
        follows = end + length <= size or name in (b"moov", b"mdat", b"moof")
        if len(box) < 8 or length < 8 or not follows:
            break  # the end, a box up to the end (length 0), or bytes that are no box
        end += length
    return end


def _matroska_end(head: bytes) -> int:
    """Where the Segment ends, 0 where it does not say (RFC 8794: id, length, content)."""

    def number(at: int) -> tuple[int, int]:
        """A number's bytes as they are, and how many; the first set bit says how many."""
        width = 9 - head[at].bit_length()
        return int.from_bytes(head[at : at + width], "big"), width

    at = 0
    while at + 16 < len(head) and head[at]:
        name, width = number(at)
        at += width
        length, width = number(at)
        at += width
        length -= 1 << 7 * width
        if length == (1 << 7 * width) - 1:
            return 0  # all ones: not known when it was written
        at += length
        if name == 0x18538067:
            return at
    return 0
