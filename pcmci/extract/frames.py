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
from pcmci.extract.timeline import Timeline, open_video, packets, reason, scan

SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video")
"""Decoders that leave out a frame no other refers to and still give all others (libdav1d does
not)."""


def decoder_versions() -> dict[str, str]:
    """What the pixels depend on: PyAV and the FFmpeg libraries it brings."""
    libraries = ("libavformat", "libavcodec", "libswscale")
    numbers = {name: ".".join(map(str, av.library_versions[name])) for name in libraries}
    return {"av": av.__version__, **numbers}


def sample_indices(count: int, frames: int, views: int = 1) -> np.ndarray:
    """Which frames of a video of `count` frames are taken: [views, frames] int64.

    The video is cut into `frames` equal parts. View 0 takes the middle of each; view k takes the
    point at the (k + 1)-th number of the van der Corput sequence (1/2, 1/4, 3/4, 1/8, 5/8, ...) of
    each part, so views are spread evenly and view k is the same however many there are. Indices
    do not decrease; a video of fewer than `frames` frames gives some of them several times.

    Raises UsageError for less than one frame or view, VideoError for a video without frames.
    """
    for name, value in (("frames", frames), ("views", views)):
        if value < 1:
            raise UsageError(f"{name} is {value}, at least 1 is needed")
    if count < 1:
        raise VideoError("no frames")
    parts = np.arange(frames, dtype=np.int64)
    rows = []
    for k in range(views):
        bits = (k + 1).bit_length()
        offset = int(f"{k + 1:b}"[::-1], 2)  # in units of 1 / 2 ** bits; integers throughout
        rows.append(((parts << bits) + offset) * count // (frames << bits))
    return np.stack(rows)


def iter_frames(
    path: Path | str, frames: int = 16, views: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode the frames that `sample_indices` names, each once.

    Yields `places`, where in the flattened [views * frames] order the frame belongs, and the frame
    itself: upright RGB [H, W, 3] uint8, pixels as they are stored (no correction of their aspect).
    One frame at a time is held. If a file turns out to have lied about its times, decoding starts
    again and gives places anew: what came last counts, and only the end of the iteration says
    that it is right.

    Raises UsageError as `sample_indices` does, and VideoError with the reason for everything
    that is wrong with the file. Frames are never guessed: each is, pixel by pixel, the one that
    decoding the whole file gives.
    """
    yield from FrameReader(path).read(lambda count: sample_indices(count, frames, views).ravel())


class _Lied(Exception):
    """Seeking did not lead where the scan says; the file has to be decoded in order."""


class FrameReader:
    """Chosen frames of one file.

    After `read`: `decoded` counts the frames that came out of the decoder in all, `in_order`
    says why the whole file was decoded (an empty string where seeking was enough).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.decoded = 0
        self.in_order = ""
        self._reformatter = VideoReformatter()

    def read(self, choose: Callable[[int], np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`choose` is told the count of frames and returns the indices of those wanted, in any
        order. Yields as `iter_frames` does. Raises VideoError."""
        with open_video(self.path) as (container, stream):
            timeline = scan(container, stream)
            self.in_order = timeline.distrust
            if not self.in_order:
                try:
                    yield from self._seek(container, stream, timeline, choose(len(timeline)))
                    return
                except _Lied as lie:
                    self.in_order = str(lie)
        expected = count = len(timeline)
        while True:
            found = 0
            for item in self._decode_all(timeline, choose(count)):
                found += 1
                if item is not None:
                    yield item
            if found == count:
                return
            # Fewer frames than packets, and no error: a sign of damage, except for what a
            # decoder cannot show at the start of a recording that was cut out of a longer one.
            if not max(1, expected - timeline.lead_in) <= found:
                raise VideoError(f"only {found} of its {expected} frames can be decoded")
            count = found

    def _seek(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        indices: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Decode from the key frame before each wanted frame, once for all that share it.

        Raises _Lied where that does not give the frames wanted, whatever the reason: whether the
        file is damaged is for decoding in order to say.
        """
        runs = itertools.groupby(np.unique(indices).tolist(), key=timeline.start_for)
        for start, members in runs:
            missing = {int(timeline.times[k]): k for k in members}
            # Some key frames are none (in a stream that is refreshed bit by bit): there decoding
            # has to start one earlier.
            for attempt in (start, start - 1)[: start + 1]:
                for frame in self._run(container, stream, timeline, attempt, missing):
                    k = missing.pop(frame.pts)
                    yield np.flatnonzero(indices == k), self._upright(frame)
                if not missing:
                    break
            else:
                raise _Lied("seeking does not lead to the frames wanted")

    def _run(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        start: int,
        missing: dict[int, int],
    ) -> Iterator[VideoFrame]:
        """Decode from `timeline.starts[start]` the frames whose times are keys of `missing`, until
        the caller has removed all. Ends early at the first sign that something is not as it
        should be."""
        codec = stream.codec_context
        skips = codec.codec.name in SKIPPING_CODECS
        key = int(timeline.starts[start])
        last: int | None = None
        for packet in itertools.chain(_packets_from(container, stream, timeline, key), [None]):
            if packet is not None:
                wanted = packet.pts in missing
                codec.skip_frame = "NONREF" if skips and not wanted else "DEFAULT"
                if packet.is_corrupt:
                    return
            try:
                frames = codec.decode(packet)
            except av.FFmpegError:
                return
            for frame in frames:
                self.decoded += 1
                if frame.is_corrupt or frame.pts is None:
                    return
                # The two fields of an h264 frame may be two packets of different times.
                if frame.interlaced_frame and codec.codec.name == "h264":
                    return
                if last is None and timeline.shown[key]:
                    intra = frame.key_frame or frame.pict_type == PictureType.I
                    if frame.pts != timeline.pts[key] or not intra:
                        return
                if last is not None and frame.pts <= last:
                    return
                last = frame.pts
                if frame.pts in missing:
                    yield frame
            if not missing:
                return

    def _decode_all(
        self, timeline: Timeline, indices: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        """Decode the whole file; for each frame what `read` yields, None for one not wanted."""
        wanted = set(indices.tolist())
        count = 0
        with open_video(self.path) as (container, stream):
            codec = stream.codec_context
            for position, packet in enumerate(itertools.chain(packets(container, stream), [None])):
                lead_in = position < timeline.first_key
                try:
                    frames = codec.decode(packet)
                except av.FFmpegError as error:
                    if lead_in:
                        continue
                    raise VideoError(
                        f"decoding fails {_at(packet, stream)}: {reason(error)}"
                    ) from error
                if packet is not None and packet.is_corrupt and not lead_in:
                    raise VideoError(f"damaged data {_at(packet, stream)}")
                for frame in frames:
                    self.decoded += 1
                    if frame.is_corrupt:
                        if timeline.leads(frame.pts):
                            continue
                        raise VideoError(f"damaged frame {_at(frame, stream)}")
                    if count in wanted:
                        yield np.flatnonzero(indices == count), self._upright(frame)
                    else:
                        yield None
                    count += 1

    def _upright(self, frame: VideoFrame) -> np.ndarray:
        """[H, W, 3] uint8 RGB, turned and mirrored as the display matrix says, to the nearest
        quarter turn."""
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        # The matrix maps a point (x right, y down) to (a x + c y, b x + d y).
        a, b, c, d = _display_matrix(frame)
        if abs(b) > abs(a):
            rgb, flips = rgb.swapaxes(0, 1), (b < 0, c < 0)
        else:
            flips = (d < 0, a < 0)
        for axis, flip in enumerate(flips):
            if flip:
                rgb = np.flip(rgb, axis)
        return np.ascontiguousarray(rgb)


def _display_matrix(frame: VideoFrame) -> tuple[float, float, float, float]:
    try:
        a, b, _, c, d = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)[:5].tolist()
    except (KeyError, ValueError):  # none, or beside it data of a kind that PyAV has no name for
        angle = math.radians(frame.rotation)  # 0 where there is no matrix; counterclockwise
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    return a, b, c, d


def _packets_from(
    container: InputContainer, stream: VideoStream, timeline: Timeline, key: int
) -> Iterator[Packet]:
    """The packets from position `key` on. Raises _Lied if seeking does not lead there."""
    # Some demuxers seek by presentation time, some by decoding time.
    for target in (timeline.pts[key], timeline.dts[key]):
        container.seek(int(target), stream=stream)
        following = packets(container, stream)
        for packet in following:
            position = timeline.position(packet.pts)
            if position is None or position > key:
                break
            if position == key:
                return itertools.chain([packet], following)
    raise _Lied("seeking does not lead to its key frames")


def _at(item: Packet | VideoFrame | None, stream: VideoStream) -> str:
    pts = None if item is None else item.pts
    return "at its end" if pts is None else f"at {float(pts * stream.time_base):.2f} s"
