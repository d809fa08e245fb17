"""Exact frames: every frame equals the sequential decode of the whole file, or the video fails.

Videos are drawn and encoded on the spot; `reference` decodes them whole and knows nothing of
`pcmci.extract`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from pcmci.errors import UsageError, VideoError
from pcmci.extract.video import frames as frames_module
from pcmci.extract.video import timeline as timeline_module
from pcmci.extract.video.frames import FrameReader, decoder_versions, iter_frames, sample_indices
from pcmci.extract.video.timeline import Timeline, open_video, scan

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints; errors only
SHARED = Path(__file__).parents[2] / "shared/data/videos"
CLIPS = sorted(SHARED.glob("*")) if SHARED.is_dir() else []


def draw(k: int, width: int, height: int) -> np.ndarray:
    """A picture that no other frame resembles: stripes and a square, both moving."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 3 + k * 7, y * 5 + k * 3, (x + y) * 2 + k * 11], -1).astype(np.uint8)
    top, left = k * 3 % max(height - 8, 1), k * 5 % max(width - 8, 1)
    picture[top : top + 8, left : left + 8] = (k * 37 % 256, k * 101 % 256, k * 53 % 256)
    return picture


@dataclass(frozen=True)
class Film:
    """How to encode a test video. `x264`: options of x264 or x265. `times`: presentation times."""

    codec: str = "libx264"
    count: int = 60
    size: tuple[int, int] = (64, 48)
    pixels: str = "yuv420p"
    x264: str = ""
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    gop: int = 12
    b_frames: int = 0
    flags: int = 0
    times: tuple[int, ...] | None = None
    unit: Fraction = Fraction(1, 25)
    orientation: tuple[Any, ...] = ()

    def write(self, path: Path | str) -> Path:
        width, height = self.size
        x265 = self.codec == "libx265"
        x264 = {f"x26{4 + x265}-params": self.x264 + ":log-level=none" * x265} if self.x264 else {}
        if self.codec == "libx264":
            x264["mbtree"] = "0"  # with it, the bits depend on what lay in memory before
        with av.open(str(path), "w", options=self.muxer) as container:
            stream = container.add_stream(self.codec, rate=25, options={**self.options, **x264})
            stream.width, stream.height, stream.pix_fmt = width, height, self.pixels
            codec = stream.codec_context
            codec.thread_count, codec.time_base = 1, self.unit
            codec.flags |= self.flags
            if not self.x264:
                codec.gop_size, codec.max_b_frames = self.gop, self.b_frames
            if self.orientation:
                stream.set_display_rotation(*self.orientation)
            for k in range(self.count):
                frame = av.VideoFrame.from_ndarray(draw(k, width, height), format="rgb24")
                frame.pts, frame.time_base = k if self.times is None else self.times[k], self.unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return Path(path)


GOP_15 = "keyint=15:bframes=3"
OPEN_GOP = "keyint=12:min-keyint=12:bframes=3:open-gop=1:scenecut=0"
VARIED = tuple(np.cumsum(np.random.default_rng(1).integers(10, 90, 60)).tolist())
MILLISECOND = Fraction(1, 1000)

SOUGHT = {
    "h264.mp4": Film(x264=GOP_15),
    "one_gop.mp4": Film(x264="keyint=250:bframes=3"),
    "h264.ts": Film(x264=GOP_15),
    "h264.flv": Film(x264=GOP_15),
    "fragments.mp4": Film(x264=GOP_15, muxer={"movflags": "frag_keyframe+empty_moov"}),
    "no_duration.mkv": Film(x264=GOP_15, muxer={"live": "1"}),
    "open_gop.mp4": Film(x264=OPEN_GOP),
    "open_gop.mkv": Film(x264=OPEN_GOP),
    "open_gop.ts": Film(x264=OPEN_GOP),
    "strips.mkv": Film(x264="keyint=15:bframes=0:intra-refresh=1"),
    "varied.mp4": Film(x264=GOP_15, times=VARIED, unit=MILLISECOND),
    "varied.mkv": Film(x264=GOP_15, times=VARIED, unit=MILLISECOND),
    "negative.mp4": Film(x264=GOP_15, times=tuple(range(-20, 40))),
    "late.mp4": Film(x264=GOP_15, times=tuple(range(1000, 1060))),
    "ten_bit.mp4": Film(x264=GOP_15, pixels="yuv420p10le"),
    "gray.mp4": Film(x264=GOP_15, pixels="gray"),
    "odd.mp4": Film(x264=GOP_15, pixels="yuv444p", size=(63, 47)),
    "odd.avi": Film("mpeg4", size=(63, 47)),
    "mpeg4.avi": Film("mpeg4"),
    "mpeg4_b.mp4": Film("mpeg4", b_frames=2),
    "mpeg2.ts": Film("mpeg2video", b_frames=2),
    "mpeg2.mkv": Film("mpeg2video", b_frames=2),
    "hevc_open.mkv": Film("libx265", x264="keyint=12:min-keyint=12:bframes=3:open-gop=1"),
    "hevc_layers.mp4": Film("libx265", x264="keyint=30:bframes=7:temporal-layers=3"),
    "vp8.webm": Film("libvpx", gop=20),
    "vp9.webm": Film("libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "16"}, gop=20),
    "one.mp4": Film("mpeg4", count=1),
    "av1.mp4": Film("libsvtav1", options={"preset": "11"}, size=(128, 96), gop=40),
    "motion.avi": Film("mjpeg", pixels="yuvj420p"),
}
IN_ORDER = {
    "mpeg4_b.avi": Film("mpeg4", b_frames=2),
    "mpeg4_b.mkv": Film("mpeg4", b_frames=2),
    "h264_b.avi": Film(x264=GOP_15),
    "bare.h264": Film(x264=GOP_15),
    "interlaced.mp4": Film(x264=GOP_15 + ":tff=1", size=(64, 64)),
}
EITHER = {"mpeg2.mpg": Film("mpeg2video", b_frames=2)}  # seeking in it is good for some frames


def reference(
    path: Path, cut: bool = False, size: tuple[int, int] | None = None
) -> list[np.ndarray]:
    """Every frame of the file in the order of presentation, upright RGB, decoded in one go;
    `cut`: what comes before the first picture that needs no other is no frame; `size`: of the
    stream, where it is not FFmpeg's best."""
    pictures: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        if size is not None:
            stream = next(s for s in container.streams.video if (s.width, s.height) == size)
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        for packet in (*packets, None):
            try:
                decoded = stream.codec_context.decode(packet)
            except av.InvalidDataError:
                if cut and not pictures:
                    continue
                raise
            for frame in decoded:
                if cut and not pictures and frame.pict_type != PictureType.I:
                    continue
                rgb = frame.to_ndarray(format="rgb24")
                pictures.append(np.rot90(rgb, round(frame.rotation / 90)))
    return pictures


def collect(
    path: Path, choose: Callable[[int], np.ndarray]
) -> tuple[dict[int, np.ndarray], FrameReader]:
    """By place, as a caller of `iter_frames` has them in the end."""
    reader = FrameReader(path)
    found = {}
    for places, frame in reader.read(choose):
        found |= dict.fromkeys(places.tolist(), frame)
    return found, reader


def assert_exact(
    path: Path,
    singles: int = 4,
    same_way: bool = True,
    cut: bool = False,
    size: tuple[int, int] | None = None,
) -> FrameReader:
    """All frames at once, and some each on its own, where nothing was decoded for another;
    `same_way`: those by seeking too, or in order too."""
    expected = reference(path, cut, size)
    found, reader = collect(path, np.arange)
    assert sorted(found) == list(range(len(expected)))
    for k, picture in enumerate(expected):
        np.testing.assert_array_equal(found[k], picture, err_msg=f"frame {k}")
        assert found[k].dtype == np.uint8
        assert found[k].flags.c_contiguous
    chosen = np.random.default_rng(len(expected)).permutation(len(expected))[:singles]
    for k in chosen.tolist():
        alone, other = collect(path, lambda count, k=k: np.array([k]))
        assert other.in_order == reader.in_order or not same_way
        np.testing.assert_array_equal(alone[0], expected[k], err_msg=f"frame {k} alone")
    return reader


@pytest.mark.skipif(not CLIPS, reason=f"{SHARED} is not there")
@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_shared_clip_equals_its_sequential_decode(path: Path) -> None:
    if path.name == "corrupted.mp4":
        with pytest.raises(VideoError, match=r"decoding fails at 3\.00 s: Invalid data"):
            list(iter_frames(path))
    else:
        assert bool(assert_exact(path).in_order) == (path.name == "test.avi")


@pytest.mark.parametrize("name", SOUGHT)
def test_seeking_is_exact(name: str, tmp_path: Path) -> None:
    reader = assert_exact(SOUGHT[name].write(tmp_path / name))
    assert reader.in_order == ""
    count = sum(1 for _ in reader.read(np.arange))
    # Nothing twice, but where the picture is refreshed strip by strip: no key frame is whole there.
    assert reader.decoded == 2 * count or (name == "strips.mkv" and reader.decoded > 2 * count)


@pytest.mark.parametrize("name", IN_ORDER)
def test_where_seeking_would_be_wrong_the_file_is_decoded_in_order(
    name: str, tmp_path: Path
) -> None:
    assert assert_exact(IN_ORDER[name].write(tmp_path / name)).in_order != ""


@pytest.mark.parametrize("name", EITHER)
def test_falling_back_midway_is_exact(name: str, tmp_path: Path) -> None:
    assert_exact(EITHER[name].write(tmp_path / name), singles=20, same_way=False)


def test_only_what_is_needed_is_decoded(tmp_path: Path) -> None:
    short_gops = Film(x264="keyint=10:min-keyint=10:scenecut=0:bframes=2", count=200)
    _, reader = collect(short_gops.write(tmp_path / "short.mp4"), lambda count: np.array([5, 155]))
    assert reader.decoded <= 2 * (6 + 4)  # from the key frame on, and the decoder's delay

    one_gop = Film(x264="keyint=250:bframes=3:b-adapt=0:b-pyramid=none:scenecut=0", count=120)
    _, reader = collect(one_gop.write(tmp_path / "one.mp4"), lambda count: np.array([100]))
    assert reader.decoded <= 100 / 4 + 5  # three of four frames are B-frames: they are left out


def test_wanted_frames_of_one_gop_are_decoded_together(tmp_path: Path) -> None:
    path = Film("mpeg4", gop=60).write(tmp_path / "film.avi")
    _, reader = collect(path, lambda count: np.array([10, 20, 30, 40]))
    assert reader.decoded == 41


def test_a_lie_found_late_gives_every_place_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Film("mpeg4", gop=10, count=120).write(tmp_path / "film.mp4")
    honest = Timeline.start_for

    def lying(self: Timeline, frame: int) -> int:
        """From frame 60 to 90 it names a key frame that comes two later."""
        return honest(self, frame) + 2 * (60 <= frame < 90)

    monkeypatch.setattr(Timeline, "start_for", lying)
    given_twice = [place for places, _ in iter_frames(path, 4) for place in places]
    assert given_twice == [0, 1, 0, 1, 2, 3]
    assert (
        assert_exact(path, same_way=False).in_order == "seeking does not lead to the frames wanted"
    )


@pytest.mark.parametrize("what", ["pts", "sizes"])
def test_packets_that_change_after_seeking_are_noticed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Film(x264=GOP_15).write(tmp_path / "film.mp4")
    with open_video(path) as (container, stream):
        honest = scan(container, stream)
    getattr(honest, what)[20] += 1
    monkeypatch.setattr(frames_module, "scan", lambda *_: honest)
    assert assert_exact(path, same_way=False).in_order == "seeking changes its packets"


def remux(source: Path, target: Path, change: Callable[[int, av.Packet], bool]) -> Path:
    """Copy the packets for which `change`, which may alter them, returns True."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for k, packet in enumerate(whole.demux(video=0)):
            if packet.size and change(k, packet):
                packet.stream = stream
                copy.mux(packet)
    return target


@pytest.mark.parametrize(
    ("name", "film"),
    [
        ("cut.ts", Film(x264=OPEN_GOP)),
        ("cut.mkv", Film("libx265", x264="keyint=12:min-keyint=12:bframes=3:open-gop=1")),
        ("cut_mpeg2.ts", Film("mpeg2video", b_frames=2)),
        ("cut.webm", Film("libvpx-vp9", gop=20)),
        ("cut_mpeg4.mkv", Film("mpeg4", gop=30)),
        ("cut_mpeg4.mov", Film("mpeg4", gop=30, b_frames=2)),
    ],
)
@pytest.mark.parametrize("at", [8, 12, 20])
def test_a_recording_cut_out_of_a_longer_one(
    name: str, film: Film, at: int, tmp_path: Path
) -> None:
    """What needs frames from before the start is no frame, and the rest is numbered without."""
    whole = film.write(tmp_path / f"whole_{name}")
    assert_exact(remux(whole, tmp_path / name, lambda k, packet: k >= at), cut=True)


def test_times_of_decoding_are_no_times_of_presentation(tmp_path: Path) -> None:
    """Some writers know only the former, and give them for the latter."""

    def confuse(k: int, packet: av.Packet) -> bool:
        packet.pts = packet.dts
        return True

    path = remux(SOUGHT["h264.mp4"].write(tmp_path / "film.mp4"), tmp_path / "film.mkv", confuse)
    assert assert_exact(path).in_order == "times that do not tell the order of its frames"


def test_times_in_another_order_than_the_frames_are_noticed(tmp_path: Path) -> None:
    def swap(k: int, packet: av.Packet) -> bool:
        packet.pts += (10 + {14: 1, 15: -1}.get(k, 0)) * packet.duration
        return True

    path = remux(SOUGHT["mpeg4_b.mp4"].write(tmp_path / "film.mp4"), tmp_path / "film.mov", swap)
    reader = assert_exact(path, singles=0)
    assert reader.in_order == "frames come in another order than their times"


@pytest.mark.parametrize("flags", [{17: True}, {0: False}])
def test_wrong_key_frame_flags_do_no_harm(flags: dict[int, bool], tmp_path: Path) -> None:
    """A predicted picture is flagged as a key frame, or the first key frame is not."""

    def flag(k: int, packet: av.Packet) -> bool:
        packet.is_keyframe = flags.get(k, packet.is_keyframe)
        return True

    path = remux(SOUGHT["mpeg4.avi"].write(tmp_path / "film.avi"), tmp_path / "film.mp4", flag)
    assert_exact(path, singles=20, same_way=False)


def test_a_packet_that_is_never_shown_is_no_frame(tmp_path: Path) -> None:
    """VP8 may have pictures that others only refer to; here every fifth is made one."""

    def hide(k: int, packet: av.Packet) -> bool:
        data = bytearray(packet)
        data[0] &= ~0x10 if k % 5 == 1 else 0xFF
        packet.update(bytes(data))
        return True

    path = remux(SOUGHT["vp8.webm"].write(tmp_path / "film.webm"), tmp_path / "hide.webm", hide)
    assert len(reference(path)) == 48
    assert assert_exact(path).in_order == ""


@pytest.mark.parametrize("limit", [None, 64 * 48])
def test_the_size_may_change_midway_but_not_beyond_the_bound(
    limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.h264"
    films = [Film(count=20, size=size, x264=GOP_15) for size in ((64, 48), (96, 80))]
    parts = [film.write(tmp_path / f"part_{path.name}").read_bytes() for film in films]
    path.write_bytes(b"".join(parts))
    if limit is None:
        assert_exact(path)
    else:
        monkeypatch.setattr(timeline_module, "MAX_PIXELS", limit)
        with pytest.raises(VideoError, match="decoding fails"):
            list(iter_frames(path))


def test_readers_in_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = [SOUGHT[n].write(tmp_path / n) for n in ("h264.mp4", "mpeg4.avi", "vp9.webm")] * 3
    alone = [np.stack([frame for _, frame in iter_frames(path)]) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda path: [f for _, f in iter_frames(path)], paths))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


# Upright


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("over", [False, True])
def test_upright(turn: int, across: bool, over: bool, tmp_path: Path) -> None:
    def first(name: str, **kwargs: Any) -> np.ndarray:
        path = Film(count=1, **kwargs).write(tmp_path / name)
        return next(iter_frames(path))[1]

    expected = np.rot90(first("stored.mp4"), turn // 90)  # counterclockwise, then mirrored
    expected = expected[:, ::-1] if across else expected
    expected = expected[::-1] if over else expected
    shown = first("shown.mp4", orientation=(turn, across, over))
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("turn", [-180, -90, 0, 90, 180])
def test_upright_where_pyav_cannot_name_the_side_data(turn: int) -> None:
    class Nameless:
        def __getitem__(self, name: str) -> None:
            raise ValueError("99 is not a valid Type")

    frame = SimpleNamespace(side_data=Nameless(), rotation=turn)
    a, b, c, d = frames_module._display_matrix(frame)
    right, up = np.array([1, 0]), np.array([0, -1])  # of the stored picture; y points down
    turned = np.array([[a, c], [b, d]]) @ right
    expected = {0: right, 90: up, -90: -up, 180: -right, -180: -right}[turn]
    np.testing.assert_allclose(turned, expected, atol=1e-9)


# Which frames


@given(count=st.integers(1, 10**7), frames=st.integers(1, 64), views=st.integers(1, 9))
def test_sample_indices(count: int, frames: int, views: int) -> None:
    indices = sample_indices(count, frames, views)
    assert indices.shape == (views, frames)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < count
    assert (np.diff(indices, axis=1) >= 0).all()
    middles = [(2 * i + 1) * count // (2 * frames) for i in range(frames)]
    assert indices[0].tolist() == middles
    np.testing.assert_array_equal(indices, sample_indices(count, frames, views + 3)[:views])
    parts = indices * frames // count  # floor: an index may begin before its part does
    assert (np.abs(parts - np.arange(frames)) <= max(1, frames // count + 1)).all()


def test_views_are_spread_evenly() -> None:
    assert sample_indices(800, 1, 7).ravel().tolist() == [400, 200, 600, 100, 500, 300, 700]
    assert sample_indices(160, 16)[0].tolist() == list(range(5, 160, 10))
    assert sample_indices(2, 4, 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 16), VideoError, "no frames"),
        ((100, 0), UsageError, "frames is 0, at least 1"),
        ((100, 16, -1), UsageError, "views is -1, at least 1"),
    ],
)
def test_sample_indices_of_nothing(
    arguments: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sample_indices(*arguments)


@pytest.mark.parametrize(("count", "frames", "views"), [(60, 16, 1), (60, 7, 3), (5, 16, 2)])
def test_every_place_is_given_once(count: int, frames: int, views: int, tmp_path: Path) -> None:
    path = Film("mpeg4", count=count).write(tmp_path / "film.mp4")
    expected = reference(path)
    indices = sample_indices(count, frames, views).ravel()
    given = list(iter_frames(path, frames, views))
    assert len(given) == len(set(indices.tolist()))
    assert sorted(np.concatenate([places for places, _ in given])) == list(range(len(indices)))
    for places, frame in given:
        for place in places:
            np.testing.assert_array_equal(frame, expected[indices[place]])


def test_decoder_versions_name_what_pixels_depend_on() -> None:
    assert decoder_versions()["av"] == av.__version__
    assert {"libavcodec", "libswscale"} <= decoder_versions().keys()


# What is no video, or is hurt


def write_sound(path: Path, cover: bool = False) -> None:
    with av.open(str(path), "w") as container:
        if cover:
            video = container.add_stream("mjpeg", rate=1)
            video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
            video.disposition = av.stream.Disposition.attached_pic
        audio = container.add_stream("aac", rate=16000)
        second = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        second.sample_rate = 16000
        if cover:
            picture = av.VideoFrame(64, 48, "yuvj420p")
            picture.pts = 0
            container.mux([*video.encode(picture), *video.encode(None)])
        container.mux([*audio.encode(second), *audio.encode(None)])


def write_no_packets(path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


def write_playlist(path: Path) -> None:
    other = Film().write(path.with_name("other.mp4"))
    path.write_text(f"ffconcat version 1.0\nfile '{other}'\n")


def write_picture(path: Path) -> None:
    Film("png", count=1, pixels="rgb24").write(path.with_suffix(".png")).rename(path)


NO_VIDEO: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "cannot be read: No such file"),
    "directory": (Path.mkdir, "cannot be read: Is a directory"),
    "empty": (Path.touch, "the file is empty"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html>404</html>" * 50), "not a video"),
    "text": (lambda path: path.write_text("1 2 3\n" * 500), "not a video file"),
    "playlist": (write_playlist, "not a video file"),
    "picture": (write_picture, "not a video file"),
    "zeros": (lambda path: path.write_bytes(bytes(10_000)), "not a video file"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 40), "not a video file"),
    "sound": (write_sound, "no video stream"),
    "sound with a cover": (lambda path: write_sound(path, cover=True), "no video stream"),
    "no packets": (write_no_packets, "no frames"),
}


@pytest.mark.parametrize("kind", NO_VIDEO)
def test_no_video(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write, message = NO_VIDEO[kind]
    write(path)
    with pytest.raises(VideoError, match=message) as caught:
        list(iter_frames(path))
    assert len(str(caught.value)) < 200
    assert str(tmp_path) not in str(caught.value)


def test_a_name_is_no_address(tmp_path: Path) -> None:
    path = Film().write(tmp_path / "film.mp4").rename(tmp_path / "http:film.mp4")
    assert len(list(iter_frames(path))) == 16
    with pytest.raises(VideoError, match="No such file"):
        list(iter_frames("http://localhost:9/film.mp4"))


@pytest.mark.parametrize("limit", [64 * 48 - 1, 64 * 48])
def test_frames_beyond_the_bound_are_refused(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Film().write(tmp_path / "film.mp4")
    monkeypatch.setattr(timeline_module, "MAX_PIXELS", limit)
    if limit < 64 * 48:
        with pytest.raises(VideoError, match="64 x 48 are too large, at most 3071 pixels"):
            list(iter_frames(path))
    else:
        assert len(list(iter_frames(path))) == 16


@pytest.mark.parametrize(
    ("name", "muxer"),
    [
        ("film.mp4", {"movflags": "faststart"}),
        ("film.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("film.mov", {}),
        ("film.mkv", {}),
        ("film.avi", {}),
    ],
)
def test_a_file_cut_off_anywhere_fails(name: str, muxer: dict[str, str], tmp_path: Path) -> None:
    whole = Film("mpeg4", muxer=muxer).write(tmp_path / name).read_bytes()
    cut = tmp_path / f"cut_{name}"
    for share in np.linspace(0.05, 0.9, 30):
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(VideoError, match=r"cut off: \d+ of \d+ bytes are missing|no frames"):
            list(iter_frames(cut))


def test_a_program_stream_cut_off_inside_a_packet_fails(tmp_path: Path) -> None:
    whole = EITHER["mpeg2.mpg"].write(tmp_path / "film.mpg").read_bytes()
    cut = tmp_path / "cut.mpg"
    for share in np.linspace(0.3, 0.9, 10):
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(VideoError, match=r"damaged (data|frame) at"):
            list(iter_frames(cut))


def test_a_transport_stream_cut_off_is_exact_up_to_there(tmp_path: Path) -> None:
    """It says nowhere how long it is."""
    whole = Film(x264=GOP_15).write(tmp_path / "film.ts").read_bytes()
    cut = tmp_path / "cut.ts"
    ends = 0
    for share in np.linspace(0.3, 0.9, 7):
        cut.write_bytes(whole[: int(share * len(whole))])
        try:
            found, _ = collect(cut, np.arange)
        except VideoError:
            ends += 1
            continue
        for k, picture in enumerate(reference(cut)):
            np.testing.assert_array_equal(found[k], picture)
    assert ends < 7


@pytest.mark.parametrize("name", ["h264.mp4", "open_gop.mkv", "h264.ts", "mpeg4.avi", "mpeg2.mpg"])
def test_flipped_bits(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each mutant fails with its reason, or gives no frame that a full decode marks as damaged."""
    whole = (SOUGHT | EITHER)[name].write(tmp_path / name).read_bytes()
    hurt = tmp_path / f"hurt_{name}"
    reasons = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        hurt.write_bytes(data)
        try:
            found, _ = collect(hurt, lambda count: sample_indices(count, 16)[0])
        except VideoError as error:
            reasons.append(str(error))
            continue
        given = {frame.tobytes() for frame in found.values()}
        decoded: dict[bool, set[bytes]] = {True: set(), False: set()}  # by whether it is damaged
        with av.open(str(hurt), metadata_errors="replace") as container:
            container.streams.video[0].codec_context.thread_count = 1
            try:
                for frame in container.decode(video=0):
                    picture = frame.to_ndarray(format="rgb24").tobytes()
                    decoded[bool(frame.is_corrupt)].add(picture)
            except av.FFmpegError:
                pass
        # A lost frame is concealed by the one before it, which is sound where it stands.
        assert not given & (decoded[True] - decoded[False])
    assert 5 < len(reasons) < 40
    assert all(0 < len(reason) < 200 and "\n" not in reason for reason in reasons)
    assert capfd.readouterr() == ("", "")


def test_fewer_frames_than_packets_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet whose frame never comes, without an error, in a file decoded in order."""
    path = IN_ORDER["mpeg4_b.avi"].write(tmp_path / "film.avi")

    def optimistic(*arguments: Any) -> Timeline:
        found = scan(*arguments)
        more = {n: np.append(getattr(found, n), getattr(found, n)[-1:]) for n in ARRAYS}
        return Timeline(**more, time_base=1, lead_in=0, distrust="it is an AVI")

    monkeypatch.setattr(frames_module, "scan", optimistic)
    with pytest.raises(VideoError, match="only 60 of its 61 frames can be decoded"):
        list(iter_frames(path))


ARRAYS = ("pts", "dts", "sizes", "key", "shown")
