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

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
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
from the decoding order, and with B-frames they are wrong."""


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream, with one decoder thread.

    Errors of FFmpeg, inside the block too, become a VideoError with FFmpeg's reason. PyAV discards
    FFmpeg's log unless a program asks for it, so nothing is printed and no global state is set.
    """
    try:
        _check_whole(path)
        container = av.open(
            f"file:{os.fspath(path)}",  # or a name with a colon would be taken for a protocol
            metadata_errors="replace",
            options={
                "protocol_whitelist": "file",
                "format_whitelist": FORMATS.replace(" ", ","),
                "max_pixels": str(MAX_PIXELS),
            },
        )
        with container:
            yield container, _video_stream(container)
    except av.FFmpegError as error:
        raise VideoError(f"FFmpeg cannot read it: {reason(error)}") from error
    except OSError as error:
        raise VideoError(f"cannot be read: {reason(error)}") from error


def reason(error: av.FFmpegError | OSError) -> str:
    """What went wrong, without the path and the number."""
    return (error.strerror or type(error).__name__)[:120]


def _video_stream(container: InputContainer) -> VideoStream:
    # A cover picture of a sound file is a video stream to FFmpeg.
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise VideoError("no video stream")
    stream = films[0]
    if stream.codec_context is None:
        raise VideoError("no decoder for its video stream")
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(
            f"its frames have {stream.width} x {stream.height} pixels, at most {MAX_PIXELS} are read"
        )
    stream.codec_context.thread_count = 1  # several videos are decoded at a time
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream


@dataclass(frozen=True)
class Timeline:
    """The packets of a video stream in the order of the file, which is the order of decoding.

    pts, dts: [n] int64, presentation and decoding time of each, in `time_base` seconds.
    key: [n] bool, decoding may start there.
    shown: [n] bool, it becomes a frame (an edit list leaves some out).
    lead_in: how many packets at the start a decoder may be unable to show, because they need
        frames from before the start of the file.
    distrust: why times and seeking cannot be believed, or an empty string.
    """

    pts: np.ndarray
    dts: np.ndarray
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

    @property
    def first_key(self) -> int:
        """Position of the first packet where decoding may start; 0 where there is none."""
        return int(np.argmax(self.key))

    def leads(self, pts: int | None) -> bool:
        """Whether a frame shown at this time belongs to the lead-in."""
        return bool(self.lead_in and pts is not None and pts < self.pts[self.first_key])

    @cached_property
    def starts(self) -> np.ndarray:
        """Positions of the packets where decoding may start, ascending."""
        return np.flatnonzero(self.key)

    def start_for(self, frame: int) -> int:
        """The last of `starts` (its index) from which `frame` can be decoded.

        Neither may it come later in the file nor be shown later: the B-frames that follow a key
        frame and are shown before it (open GOP) need the one before.
        """
        position = self.position(int(self.times[frame]))
        usable = (self.starts <= position) & (self.pts[self.starts] <= self.times[frame])
        return int(np.flatnonzero(usable)[-1])


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """What is left of the stream, without empty packets: AVI says "the same frame again" with
    one, and a decoder would take it for the end."""
    return (packet for packet in container.demux(stream) if packet.size)


def scan(container: InputContainer, stream: VideoStream) -> Timeline:
    """Read every packet, decode none. Memory: 18 bytes a packet.

    Raises VideoError where there is no packet.
    """
    pts, dts, key, shown = array("q"), array("q"), bytearray(), bytearray()
    timed = True
    vp8 = stream.codec_context.codec.name in ("vp8", "libvpx")
    for packet in packets(container, stream):
        timed = timed and packet.pts is not None
        pts.append(packet.pts or 0)
        dts.append(packet.pts or 0 if packet.dts is None else packet.dts)
        key.append(packet.is_keyframe)
        # VP8 keeps a picture that is only referred to in a packet of its own; the frame header
        # (RFC 6386, 9.1) has a bit for it.
        shown.append(not packet.is_discard and not (vp8 and not memoryview(packet)[0] & 0x10))
    if not any(shown):
        raise VideoError("no frames")
    return _timeline(
        container, stream, timed, *map(np.asarray, (pts, dts)), *map(_bools, (key, shown))
    )


def _bools(flags: bytearray) -> np.ndarray:
    return np.frombuffer(flags, np.uint8).astype(bool)


def _timeline(
    container: InputContainer,
    stream: VideoStream,
    timed: bool,
    pts: np.ndarray,
    dts: np.ndarray,
    key: np.ndarray,
    shown: np.ndarray,
) -> Timeline:
    first_key = int(np.argmax(key)) if key.any() else 0
    leads = (np.arange(len(pts)) < first_key) | (pts < pts[first_key])
    lead_in = int((leads & shown).sum()) if timed else first_key

    container_name = container.format.name.split(",")[0]
    reordered = stream.codec_context.has_b_frames or bool((np.diff(pts) < 0).any())
    distrust = ""
    if not timed:
        distrust = "packets without a time"
    elif len(np.unique(pts)) < len(pts):
        distrust = "two packets of the same time"
    elif not key.any() or lead_in:
        distrust = "it does not start with a key frame"
    elif (np.diff(pts[key]) < 0).any():
        distrust = "key frames out of order"
    elif reordered and (
        container_name not in TIMED_FORMATS
        # Matroska can wrap an AVI's stream, with the AVI's times.
        or (stream.codec_context.codec.name == "mpeg4" and container_name != "mov")
        or np.array_equal(pts, dts)
    ):
        distrust = "times that do not tell the order of its frames"
    return Timeline(pts, dts, key, shown, float(stream.time_base or 0), lead_in, distrust)


def _check_whole(path: Path | str) -> None:
    """Raise VideoError if the outermost boxes declare more bytes than the file has.

    A demuxer reads a file that was cut off up to its end and says nothing.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise VideoError("the file is empty")
    with open(path, "rb") as file:
        head = file.read(4096)
        end = 0
        if head[:4] == b"\x1aE\xdf\xa3":
            end = _matroska_end(head)
        elif head[:4] == b"RIFF":
            end = 8 + int.from_bytes(head[4:8], "little")
            end -= 8  # some writers count these eight bytes too
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            while end + 8 <= size:
                file.seek(end)
                box = file.read(16)
                length = int.from_bytes(box[:4], "big")
                if length == 1:
                    length = int.from_bytes(box[8:], "big")
                if length < 8 or (
                    end + length > size and box[4:8] not in (b"moov", b"mdat", b"moof")
                ):
                    break  # up to the end of the file (0), or what follows is no box
                end += length
    if end > size:
        raise VideoError(f"cut off: {end - size} of {end} bytes are missing")


def _matroska_end(head: bytes) -> int:
    """Where the Segment ends, 0 where it does not say (RFC 8794: an id, a length, the content)."""

    def number(at: int, keep_marker: bool) -> tuple[int, int]:
        width = 9 - head[at].bit_length()
        value = int.from_bytes(head[at : at + width], "big")
        marker = 1 << (7 * width)
        return (value if keep_marker else value - marker), at + width

    at = 0
    while at + 16 < len(head) and head[at]:
        name, at = number(at, keep_marker=True)
        width = 9 - head[at].bit_length()
        length, at = number(at, keep_marker=False)
        if length == (1 << (7 * width)) - 1:
            return 0  # all ones: not known when it was written
        if name == 0x18538067:
            return at + length
        at += length
    return 0
