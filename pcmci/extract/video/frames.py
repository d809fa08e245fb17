"""A video file to some of its frames, exactly those, without decoding the rest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from pcmci.errors import UsageError, VideoError
from pcmci.extract.video.standins import (
    decode_all,
    in_order_of_presentation,
    nearest,
    sound_positions,
    survey,
)
from pcmci.extract.video.timeline import (
    NO_ORDER,
    NO_TIMES,
    Timeline,
    open_video,
    packets,
    reason,
    scan,
    to_be_shown,
)

SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video")
"""Decoders that can leave out a frame to which no other refers, and then give all others (AV1's
loses some)."""

Placed = tuple[np.ndarray, np.ndarray]
"""Where a frame belongs, and the frame: see `iter_frames`."""

NATIVE_FPS = 30
"""Frames a second by which the strides of video models are counted."""


def decoder_versions() -> dict[str, str]:
    """What the pixels depend on: PyAV and the FFmpeg libraries it brings."""
    libraries = ("libavformat", "libavcodec", "libswscale")
    numbers = {name: ".".join(map(str, av.library_versions[name])) for name in libraries}
    return {"av": av.__version__, **numbers}


def sample_indices(count: int, frames: int, views: int = 1) -> np.ndarray:
    """Which frames of a video of `count` frames are taken: [views, frames] int64.

    The video is cut into `frames` equal parts. View 0 takes the middle of each; view k takes, of
    each part, the point at number k + 1 of the van der Corput sequence (1/2, 1/4, 3/4, 1/8, 5/8,
    ...): views spread evenly, and view k is the same however many there are. Indices never
    decrease; a video of fewer than `frames` frames gives some of them several times.

    Raises UsageError for less than one frame or view, VideoError for a video without frames.
    """
    for name, value in (("frames", frames), ("views", views)):
        if value < 1:
            raise UsageError(f"{name} is {value}, at least 1 is needed")
    if count < 1:
        raise VideoError("no frames")
    parts = np.arange(frames, dtype=np.int64)
    rows = []
    for k in range(1, views + 1):
        bits = k.bit_length()
        offset = int(f"{k:b}"[::-1], 2)  # over 2 ** bits; integers, so that nothing is rounded
        rows.append(((parts << bits) + offset) * count // (frames << bits))
    return np.stack(rows)


def dense_indices(
    centres: np.ndarray, count: int, fps: float, clip_frames: int, stride: int
) -> np.ndarray:
    """The frames of a clip of native pace around each frame: `stride` / 30 seconds from one to the
    next, whatever the rate of the file. A clip that would reach over an end of the video is moved
    inside; where the video is shorter than a clip, its first or last frame is repeated.

    centres: [...], indices of frames. count, fps: frames of the file, and how many a second.
    Returns [..., F] int64. Raises VideoError for a file of several frames that have no times.
    """
    if count > 1 and fps <= 0:
        raise VideoError("its frames have no times, which dense windows need")
    step = stride * fps / NATIVE_FPS
    length = step * (clip_frames - 1)
    first = np.clip(centres - length / 2, 0, max(0.0, count - 1 - length))
    wanted = np.rint(first[..., None] + step * np.arange(clip_frames))
    return np.clip(wanted, 0, count - 1).astype(np.int64)


def iter_frames(path: Path | str, frames: int = 16, views: int = 1) -> Iterator[Placed]:
    """Decode the frames that `sample_indices` names, each once and one at a time.

    Yields `places`, the positions of a frame in the flattened [views * frames] order, and the
    frame: upright RGB [H, W, 3] uint8 (pixels that are not square stay so). If seeking in a file
    turns out to mislead, decoding starts again and gives places anew: what comes last counts, and
    places are right once the iteration has ended without an error.

    Raises UsageError as `sample_indices` does, and VideoError with the reason for everything
    that is wrong with the file, as far as container and codec can tell. No frame is a guess: each
    is, pixel by pixel, what decoding the whole file gives.
    """
    return FrameReader(path).read(lambda count: sample_indices(count, frames, views).ravel())


class _Misled(Exception):
    """Seeking did not give what the scan promised: the file has to be decoded in order."""


class _Damaged(VideoError):
    """Not every frame of a file can be decoded. timeline: of the file."""

    def __init__(self, message: str, timeline: Timeline) -> None:
        super().__init__(message)
        self.timeline = timeline


class FrameReader:
    """Chosen frames of one file. For one thread; PyAV releases the interpreter's lock while it
    reads, decodes and converts, so readers in several threads do run side by side.

    mend: in a damaged file the nearest frame that can be decoded stands in for each that cannot
    (`pcmci.extract.video.standins`); without, such a file fails.

    Once `read` asks which frames are wanted, `fps` is how many a second the file has by the times
    of its frames; 0 where they have none. After it: `decoded` counts the frames that came out of
    the decoder, `in_order` says why the whole file was decoded, and is an empty string where
    seeking was enough. `replaced` counts the places whose own frame cannot be decoded, `damage`
    says what was wrong. `seconds` has the time of the frame at each place from the film's first
    frame on, and lacks those that cannot be told.
    """

    def __init__(self, path: Path | str, mend: bool = False) -> None:
        self.path, self.mend = path, mend
        self.decoded = self.replaced = 0
        self.fps = 0.0
        self.in_order = self.damage = ""
        self.seconds: dict[int, float] = {}
        self._reformatter = VideoReformatter()

    def read(self, choose: Callable[[int], np.ndarray]) -> Iterator[Placed]:
        """`choose` is told the number of frames and returns the indices of those wanted, in any
        order. Yields and raises as `iter_frames` does."""
        self.replaced, self.damage, self.seconds = 0, "", {}
        try:
            yield from self._read(choose)
        except _Damaged as error:
            if not self.mend:
                raise
            yield from self._read_mended(error, choose)

    def _read(self, choose: Callable[[int], np.ndarray]) -> Iterator[Placed]:
        """Raises _Damaged where the file can be read and not all of its frames be decoded."""
        with open_video(self.path) as (container, stream):
            timeline = scan(container, stream)
            self.in_order, self.fps = timeline.distrust, timeline.fps
            if not self.in_order:
                try:
                    yield from self._seek(container, stream, timeline, choose(len(timeline)))
                    return
                except _Misled as misled:
                    self.in_order = str(misled)
        expected = count = len(timeline)
        for _ in range(2):
            found = 0
            for placed in self._decode_all(timeline, choose(count)):
                found += 1
                if placed is not None:
                    yield placed
            if found == count:
                return
            # Fewer frames than packets and no error is a sign of damage, except at the start of
            # a recording that was cut out of a longer one: then the count was wrong.
            if found < max(1, expected - timeline.lead_in):
                raise _Damaged(f"only {found} of its {expected} frames can be decoded", timeline)
            count = found
        raise VideoError("decoding it twice gives different numbers of frames")

    def _read_mended(
        self, damaged: _Damaged, choose: Callable[[int], np.ndarray]
    ) -> Iterator[Placed]:
        """The places wanted, from frames that can be decoded. Raises `damaged` where none can."""
        found = survey(self.path, damaged.timeline)
        sound = sound_positions(damaged.timeline, found)
        if not sound:
            raise damaged
        order = in_order_of_presentation(damaged.timeline, found, sound)
        indices = choose(len(order))
        taken = nearest(order, sound, indices)
        self.replaced = int((taken != np.array(order)[indices]).sum())
        self.damage = str(damaged)
        wanted = set(taken.tolist())
        for position, frame in decode_all(self.path, damaged.timeline, set()):
            self.decoded += 1
            if position in wanted:
                yield self._placed(np.flatnonzero(taken == position), frame, damaged.timeline)

    def _seek(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        indices: np.ndarray,
    ) -> Iterator[Placed]:
        """Decode from the key frame before each wanted frame, once for all that share it.

        Raises _Misled where that does not give the frames wanted, whatever the reason: whether
        the file is damaged is for decoding in order to say.
        """
        runs = itertools.groupby(np.unique(indices).tolist(), key=timeline.start_for)
        for start, members in runs:
            missing = {int(timeline.times[k]): k for k in members}
            # Some key frames are not whole (a picture may be refreshed strip by strip): then
            # decoding has to start one earlier.
            for attempt in (start, start - 1)[: start + 1]:
                for k, frame in self._run(container, stream, timeline, attempt, missing):
                    yield self._placed(np.flatnonzero(indices == k), frame, timeline)
                if not missing:
                    break
            else:
                raise _Misled("seeking does not lead to the frames wanted")

    def _run(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        start: int,
        missing: dict[int, int],
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from `timeline.starts[start]` the frames `missing` (presentation time -> index),
        removing what is found. Ends early where decoding from there does not go well; raises
        _Misled where the times themselves are wrong.
        """
        codec = stream.codec_context
        skips = codec.name in SKIPPING_CODECS
        key = int(timeline.starts[start])
        last: int | None = None
        for packet in itertools.chain(_packets_from(container, stream, timeline, start), [None]):
            if packet is not None:
                if packet.is_corrupt:
                    return
                wanted = packet.pts in missing
                codec.skip_frame = "NONREF" if skips and not wanted else "DEFAULT"
            try:
                frames = codec.decode(packet)
            except av.FFmpegError:
                return
            for frame in frames:
                # The key frame before an edit list's first frame is none of the film's.
                self.decoded += bool(timeline.shown[key] or frame.pts != timeline.pts[key])
                is_key = frame.pts == timeline.pts[key] and _is_intra(frame)
                if frame.is_corrupt or (last is None and not is_key):
                    return
                if frame.pts is None or (last is not None and frame.pts <= last):
                    raise _Misled("frames come in another order than their times")
                # The two fields of an h264 frame may be two packets with a time each.
                if frame.interlaced_frame and codec.name == "h264":
                    raise _Misled("its frames are interlaced")
                last = frame.pts
                if frame.pts in missing:
                    yield missing.pop(frame.pts), frame
            if not missing:
                return

    def _decode_all(self, timeline: Timeline, indices: np.ndarray) -> Iterator[Placed | None]:
        """Decode the whole file: an item a frame, None for one that is not wanted."""
        wanted = set(indices.tolist())
        count = 0
        with open_video(self.path) as (container, stream):
            codec = stream.codec_context
            for position, packet in enumerate(itertools.chain(packets(container, stream), [None])):
                lead_in = count == 0 and position < timeline.first_key
                try:
                    frames = codec.decode(packet)
                except av.FFmpegError as error:
                    if lead_in:
                        continue
                    at = _at(packet, timeline)
                    raise _Damaged(f"decoding fails {at}: {reason(error)}", timeline) from error
                if packet is not None and packet.is_corrupt and not lead_in:
                    raise _Damaged(f"damaged data {_at(packet, timeline)}", timeline)
                for frame in frames:
                    self.decoded += 1
                    if count == 0 and timeline.is_orphan(frame.pts) and not _is_intra(frame):
                        continue  # some decoders predict from nothing, and say nothing
                    # MPEG-4 predicts from a grey picture where the first one is lost.
                    first = count == 0 and timeline.key[0] and timeline.shown[0]
                    lost = first and codec.name in SKIPPING_CODECS
                    if frame.is_corrupt or (lost and not _is_intra(frame)):
                        raise _Damaged(f"damaged frame {_at(frame, timeline)}", timeline)
                    if count in wanted:
                        yield self._placed(np.flatnonzero(indices == count), frame, timeline)
                    else:
                        yield None
                    count += 1

    def _placed(self, places: np.ndarray, frame: VideoFrame, timeline: Timeline) -> Placed:
        if frame.pts is not None and timeline.distrust not in (NO_TIMES, NO_ORDER):
            seconds = float((frame.pts - timeline.times[0]) * timeline.time_base)
            self.seconds |= dict.fromkeys(places.tolist(), seconds)
        return places, self._upright(frame)

    def _upright(self, frame: VideoFrame) -> np.ndarray:
        """[H, W, 3] uint8 RGB, turned and mirrored as the display matrix says, to the nearest
        quarter turn."""
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        # The matrix takes a point (x to the right, y down) to (a x + c y, b x + d y).
        a, b, c, d = _display_matrix(frame)
        if abs(b) > abs(a):
            rgb, down, right = rgb.swapaxes(0, 1), b, c
        else:
            down, right = d, a
        return np.ascontiguousarray(rgb[:: 1 if down >= 0 else -1, :: 1 if right >= 0 else -1])


def _is_intra(frame: VideoFrame) -> bool:
    return bool(frame.key_frame) or frame.pict_type == PictureType.I


def _display_matrix(frame: VideoFrame) -> tuple[float, float, float, float]:
    try:
        data = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
        return a, b, c, d
    except (KeyError, ValueError):  # there is none, or data beside it that PyAV has no name for
        turn = math.radians(frame.rotation)  # counterclockwise, 0 without a matrix
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)


def _packets_from(
    container: InputContainer, stream: VideoStream, timeline: Timeline, start: int
) -> Iterator[Packet]:
    """The packets from `timeline.starts[start]` on, each checked against the scan: after seeking,
    FFmpeg may make up other times than before. Raises _Misled."""
    key = int(timeline.starts[start])
    # Some demuxers seek by presentation time, some by decoding time.
    for target in (timeline.pts[key], timeline.dts[key]):
        container.seek(int(target), stream=stream)
        following = packets(container, stream)
        landed = (p for p in following if (timeline.position(p.pts) or 0) >= key)
        first = next(landed, None)
        if first is not None and timeline.position(first.pts) == key:
            break
    else:
        raise _Misled("seeking does not lead to its key frames")
    for position, packet in enumerate(itertools.chain([first], following), start=key):
        if timeline.position(packet.pts) != position or packet.size != timeline.sizes[position]:
            raise _Misled("seeking changes its packets")
        yield to_be_shown(packet) if position == key else packet


def _at(item: Packet | VideoFrame | None, timeline: Timeline) -> str:
    if item is None or item.pts is None:
        return "at an unknown time"
    return f"at {item.pts * timeline.time_base:.2f} s"
