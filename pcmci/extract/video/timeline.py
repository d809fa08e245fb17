"""When each frame of a video file is shown, found without decoding any of them.

Opening and scanning live here: what is a video at all, which packets become frames, in which
order they are shown, where decoding may start, and whether seeking in this file can be believed.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet, PktSideDataT
from av.stream import Disposition
from av.video.stream import VideoStream

from pcmci.errors import VideoError
from pcmci.extract.video.hidden import hidden_packets, shows_at_the_end
from pcmci.extract.video.whole import cut_off, frames_are_lost

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

STILL = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
"""How a container flags a stream that is no film: a cover, a picture, previews of chapters."""

PICTURES = ("mjpeg", "png", "bmp", "gif", "tiff", "webp", "jpeg2000", "jpegls")
"""Codecs of covers, where nothing flags them."""

NO_TIMES = "packets without a time"
NO_ORDER = "times that do not tell the order of its frames"
"""Why a file's times tell nothing at all."""

GIVEN_ONCE: tuple[PktSideDataT, ...] = ("palette", "new_extradata", "param_change")
"""What a demuxer gives beside one packet, and what holds for all that follow."""


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream (docs/frames.md says which), with one decoder thread.

    Errors of FFmpeg, inside the block too, become a VideoError with FFmpeg's reason. PyAV throws
    FFmpeg's log away unless a program asks for it, so nothing is printed and nothing global is set.
    """
    try:
        cut = cut_off(path)
        with ExitStack() as opened:
            try:
                container = opened.enter_context(_open(path))
                films = _films(container)
                chosen = films[0].index
                if len(films) > 1 or (_is_picture(films[0]) and container.streams.audio):
                    chosen = _best(container, films)
                    container = opened.enter_context(_open(path))  # packets were taken from it
                stream = _ready(next(s for s in container.streams.video if s.index == chosen))
            except (VideoError, av.FFmpegError) as error:
                raise VideoError(cut) if cut else error from None
            yield container, stream
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


def _path(container: InputContainer) -> str:
    return container.name.removeprefix("file:")


def _films(container: InputContainer) -> list[VideoStream]:
    # A sound file's cover picture is a video stream to FFmpeg.
    films = [s for s in container.streams.video if not s.disposition & STILL]
    if not films:
        raise VideoError("no video stream")
    return films


def _is_picture(stream: VideoStream) -> bool:
    codec = stream.codec_context
    return codec is not None and codec.codec.canonical_name in PICTURES


def _best(container: InputContainer, films: Sequence[VideoStream]) -> int:
    """The index of the film among several video streams, or beside sound: not what has a single
    packet (a cover that nothing flags); then the one flagged default; then the largest."""
    counts = {film.index: 0 for film in films}
    for packet in container.demux(films):
        if packet.size:
            counts[packet.stream.index] += 1
            if min(counts.values()) > 1:
                break

    def rank(film: VideoStream) -> tuple[int, ...]:
        moves = counts[film.index] > 1
        default = bool(film.disposition & Disposition.default)
        size = film.width * film.height if film.codec_context is not None else 0
        return moves, moves or not _is_picture(film), default, size, -film.index

    best = max(films, key=rank)
    if counts[best.index] < 2 and _is_picture(best) and container.streams.audio:
        raise VideoError("no video stream, only a picture")
    return best.index


def _ready(stream: VideoStream) -> VideoStream:
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
    shown: [n] bool, it becomes a frame (an edit list leaves some out, others are only referred to).
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

    @property
    def end(self) -> float:
        """Seconds: when the last frame ends, if it is shown for as long as most are."""
        steps = np.diff(self.times)
        return float(self.times[-1] + (np.median(steps) if len(steps) else 0)) * self.time_base

    @property
    def fps(self) -> float:
        """Frames a second, on average; 0 where times do not tell."""
        span = float(self.times[-1] - self.times[0]) * self.time_base if len(self.times) > 1 else 0
        return (len(self.times) - 1) / span if span > 0 else 0.0

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
    one, and a decoder would take it for the end. Where a file was cut off it ends; `scan` says
    whether frames lie in the rest. Raises VideoError."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except IndexError as error:  # PyAV's, where damage looks like a further stream
        raise VideoError("damaged data: a stream that is not declared") from error
    except av.FFmpegError:
        if not cut_off(_path(container)):
            raise


def to_be_shown(packet: Packet) -> Packet:
    """The same, and where an edit list leaves it out without the mark that says so: the decoder
    then gives its frame, which can be looked at."""
    if not packet.is_discard or next(packet.iter_sidedata(), None) is not None:
        return packet
    same = Packet(bytes(packet))
    same.pts, same.dts, same.time_base = packet.pts, packet.dts, packet.time_base
    same.is_keyframe = packet.is_keyframe
    return same


def scan(container: InputContainer, stream: VideoStream) -> Timeline:
    """Read every packet, decode none. Memory: 22 bytes a packet.

    Raises VideoError where no packet becomes a frame, and where frames lie in what is missing of a
    file that was cut off.
    """
    pts, dts, sizes, key, shown = array("q"), array("q"), array("i"), bytearray(), bytearray()
    timed, given_once, torn, hidden = True, False, False, False
    hides = hidden_packets(stream)
    for packet in packets(container, stream):
        timed = timed and packet.pts is not None
        pts.append(packet.pts or 0)
        dts.append(pts[-1] if packet.dts is None else packet.dts)
        sizes.append(packet.size)
        hidden = hides is not None and hides(packet)
        key.append(packet.is_keyframe and not hidden)  # nothing would tell that it is one
        shown.append(not (hidden or packet.is_discard))
        torn = packet.is_corrupt
        if next(packet.iter_sidedata(), None) is not None:
            given_once = given_once or any(packet.has_sidedata(kind) for kind in GIVEN_ONCE)
    if hidden and shows_at_the_end(stream):
        shown[-1] = True
    path = _path(container)
    if not any(shown):
        raise VideoError(cut_off(path) or "no frames")
    found = _timeline(
        container,
        stream,
        timed,
        given_once,
        np.array(pts, np.int64),
        np.array(dts, np.int64),
        np.array(sizes, np.int32),
        np.frombuffer(key, np.bool_),
        np.frombuffer(shown, np.bool_),
    )
    if (cut := cut_off(path)) and (torn or frames_are_lost(path, container, stream, found.end)):
        raise VideoError(cut)
    return found


def _timeline(
    container: InputContainer,
    stream: VideoStream,
    timed: bool,
    given_once: bool,
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
        distrust = NO_TIMES
    elif given_once:
        distrust = "a palette or other settings that are given once"
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
        distrust = NO_ORDER
    return Timeline(pts, dts, sizes, key, shown, float(stream.time_base or 0), lead_in, distrust)
