"""Which stream of a file is the film, which of its packets are frames, whether all are there."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from films import (
    Picture,
    claim_more,
    drop_frames,
    hide_keys,
    pack_b_frames,
    packets_of,
    pipe,
    split_frames,
    with_edits,
    write_palette,
    write_streams,
)
from test_frames import GOP_15, OPEN_GOP, Film, assert_exact, collect, reference

from pcmci.errors import VideoError
from pcmci.extract.video.frames import iter_frames
from pcmci.extract.video.hidden import hidden_packets
from pcmci.extract.video.timeline import open_video, scan

FILM = Film("mpeg4", count=40)
LARGE = Film("mpeg4", count=30, size=(96, 80))
DEFAULT = Disposition.default


def assert_shows(path: Path, expected: list[np.ndarray]) -> None:
    found, _ = collect(path, np.arange)
    assert sorted(found) == list(range(len(expected)))
    for k, picture in enumerate(expected):
        np.testing.assert_array_equal(found[k], picture, err_msg=f"frame {k}")


# The stream


@pytest.mark.parametrize("flag", [None, DEFAULT, Disposition.attached_pic, Disposition.still_image])
@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv"])
@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_a_cover_is_not_the_film(name: str, codec: str, flag: Disposition, tmp_path: Path) -> None:
    """Not even as the first stream, larger, and flagged default."""
    if name.endswith("mkv") and codec == "png":
        pytest.skip("the muxer takes no PNG")
    path = write_streams(tmp_path / name, Picture(codec), FILM, "1", flags=[flag])
    assert_shows(path, reference(FILM.write(tmp_path / f"alone_{name}")))


@pytest.mark.parametrize("parts", [(FILM,), (FILM, "1"), (Picture(), FILM)])
def test_an_attachment_is_not_the_film(parts: tuple, tmp_path: Path) -> None:
    path = write_streams(tmp_path / "film.mkv", *parts, attached=True)
    assert_shows(path, reference(FILM.write(tmp_path / "alone.mkv")))


def test_pictures_alone_are_a_film_and_beside_sound_a_cover(tmp_path: Path) -> None:
    one = Film("mjpeg", count=1, pixels="yuvj420p")
    assert len(list(iter_frames(one.write(tmp_path / "one.mov"), 1))) == 1
    sound = write_streams(tmp_path / "sound.mov", Picture(), "1")
    with pytest.raises(VideoError, match="no video stream, only a picture"):
        list(iter_frames(sound))
    motion = Film("mjpeg", count=5, pixels="yuvj420p")
    path = write_streams(tmp_path / "motion.mov", motion, "1")
    assert_shows(path, reference(motion.write(tmp_path / "alone.mov")))


def test_a_film_of_one_frame_is_no_cover(tmp_path: Path) -> None:
    one = Film("mpeg4", count=1)
    path = write_streams(tmp_path / "film.mp4", Picture("png"), one)
    assert_shows(path, reference(one.write(tmp_path / "one.mp4")))


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ([None, None], LARGE),
        ([DEFAULT, None], FILM),
        ([None, DEFAULT], LARGE),
        ([DEFAULT, DEFAULT], LARGE),
    ],
)
def test_of_several_films_the_default_one_then_the_largest(
    flags: list, chosen: Film, tmp_path: Path
) -> None:
    for order in ((FILM, LARGE), (LARGE, FILM)):
        given = flags if order[0] is FILM else flags[::-1]
        path = write_streams(tmp_path / "film.mkv", *order, flags=given)
        assert_shows(path, reference(chosen.write(tmp_path / "alone.mkv")))


def test_of_equal_films_the_first(tmp_path: Path) -> None:
    other = Film("mpeg4", count=25)
    path = write_streams(tmp_path / "film.mkv", other, FILM)
    assert_shows(path, reference(other.write(tmp_path / "alone.mkv")))


# What a demuxer gives once


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize(
    ("name", "codec"), [("film.avi", "rawvideo"), ("film.mov", "rawvideo"), ("film.avi", "msrle")]
)
def test_a_palette_is_not_lost(name: str, codec: str, change: bool, tmp_path: Path) -> None:
    path = write_palette(tmp_path / name, change=change, codec=codec)
    reader = assert_exact(path)
    assert reader.in_order == "a palette or other settings that are given once"
    assert np.mean([frame.mean() for _, frame in iter_frames(path)]) > 50  # not black


# Frames that are not to be shown


@pytest.mark.parametrize("name", ["film.avi", "film.mp4", "film.mkv"])
@pytest.mark.parametrize("dropped", [lambda k: k % 7 == 3, lambda k: k in (1, 2, 39), lambda k: k])
def test_dropped_frames_of_xvid(name: str, dropped, tmp_path: Path) -> None:
    """Key frames among them, which are then none."""
    source = FILM.write(tmp_path / f"whole_{name}")
    path = drop_frames(source, tmp_path / name, dropped)
    left = sum(not dropped(k) for k in range(40)) + bool(dropped(39))  # FFmpeg repeats the last
    assert len(reference(path)) == left
    assert assert_exact(path).in_order == ""


def test_small_frames_are_no_dropped_ones(tmp_path: Path) -> None:
    """A film in which nothing moves has packets that are as small."""
    path = tmp_path / "still.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert min(len(data) for data, _ in packets_of(path)) < 20
    assert len(reference(path)) == 20
    assert_exact(path)


def test_packed_b_frames(tmp_path: Path) -> None:
    """There a small packet keeps the place of a frame that lies in the packet before."""
    film = Film("mpeg4", count=61, b_frames=1, options={"b_strategy": "0"})
    path = pack_b_frames(film.write(tmp_path / "film.avi"), tmp_path / "packed.avi")
    assert len(reference(path)) == len(packets_of(path)) == 61
    assert_exact(path)


@pytest.mark.parametrize("name", ["film.webm", "film.ivf", "film.mp4"])
@pytest.mark.parametrize("together", [False, True])
def test_hidden_frames_of_vp9(name: str, together: bool, tmp_path: Path) -> None:
    film = Film("libvpx-vp9", gop=20, options={"auto-alt-ref": "0", "lag-in-frames": "0"})
    path = hide_keys(film.write(tmp_path / "plain.webm"), tmp_path / name, together)
    merged = together or name.endswith("ivf")  # its muxer does so
    assert len(packets_of(path)) == (60 if merged else 63)
    assert len(reference(path)) == 60
    assert_exact(path)


@pytest.mark.parametrize("name", ["film.mkv", "film.ivf"])
def test_hidden_frames_of_av1(name: str, tmp_path: Path) -> None:
    film = Film("libsvtav1", options={"preset": "11"}, size=(128, 96), gop=40)
    path = split_frames(film.write(tmp_path / "plain.mp4"), tmp_path / name)
    assert len(packets_of(path)) > 60
    assert len(reference(path)) == 60
    assert_exact(path)


@pytest.mark.parametrize("seed", range(30))
def test_headers_that_make_no_sense_are_of_frames_or_not(seed: int, tmp_path: Path) -> None:
    """Whatever a packet holds, looking at it ends, with an answer."""
    rng = np.random.default_rng(seed)
    for name, codec in (("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.mp4", "libsvtav1")):
        film = Film(
            codec, count=2, size=(64, 64), options={"preset": "12"} if "svt" in codec else {}
        )
        path = tmp_path / name
        if not path.exists():
            film.write(path)
        with open_video(path) as (_, stream):
            hides = hidden_packets(stream)
            for _ in range(50):
                assert hides is not None
                raw = rng.bytes(int(rng.integers(1, 30)))
                assert hides(av.Packet(b"\0\0\1\xb6" * bool(rng.integers(2)) + raw)) in (
                    True,
                    False,
                )


# Edit lists


EDITS = [
    [(53, 7)], [(40, 20)], [(20, 11)], [(1, 13)], [(10, 5), (10, 30)], [(10, 30), (10, 5)],
    [(10, 5), (10, 5)], [(5, None), (30, 7)], [(20, 0), (20, 20), (20, 40)],
]  # fmt: skip


@pytest.mark.parametrize("edits", EDITS, ids=str)
@pytest.mark.parametrize(
    "film",
    [Film("mpeg4"), Film("mpeg4", b_frames=2), Film(x264=GOP_15), Film(x264=OPEN_GOP)],
    ids=["mpeg4", "b", "h264", "open"],
)
def test_an_edit_list_that_begins_anywhere(film: Film, edits: list, tmp_path: Path) -> None:
    """The frames that it names, all of them, each once for each time that it does."""
    whole = film.write(tmp_path / "whole.mp4")
    path = tmp_path / "edited.mp4"
    path.write_bytes(with_edits(whole.read_bytes(), edits))
    every = reference(whole)
    named = [k for count, start in edits if start is not None for k in range(start, start + count)]
    assert_shows(path, [every[k] for k in named])
    for one in (0, len(named) // 2, len(named) - 1):
        alone, _ = collect(path, lambda count, one=one: np.array([one]))
        np.testing.assert_array_equal(alone[0], every[named[one]])


def test_a_key_frame_that_is_none_before_an_edit_lists_start(tmp_path: Path) -> None:
    """Nothing of it is shown, so only a look at it tells."""
    whole = Film("mpeg4", gop=60).write(tmp_path / "whole.mp4")
    raw = bytearray(with_edits(whole.read_bytes(), [(30, 25)]))
    at = raw.find(b"stss")
    assert raw[at + 8 : at + 16] == bytes([0, 0, 0, 1, 0, 0, 0, 1])  # the first frame alone
    raw[at + 15] = 21  # which is none
    path = tmp_path / "edited.mp4"
    path.write_bytes(raw)
    assert_exact(path, same_way=False)


# Sizes that lie


@pytest.mark.parametrize("more", [1, 8, 5000])
@pytest.mark.parametrize(
    ("name", "muxer"),
    [("film.mp4", {"movflags": "faststart"}), ("film.mkv", {}), ("film.avi", {}),
     ("film.mp4", {"movflags": "frag_keyframe+empty_moov"})],
)  # fmt: skip
def test_a_box_that_claims_more_than_there_is(
    name: str, muxer: dict[str, str], more: int, tmp_path: Path
) -> None:
    whole = Film("mpeg4", muxer=muxer).write(tmp_path / f"whole_{name}")
    raw = whole.read_bytes()
    if "frag" in str(muxer):
        raw = raw[: raw.rfind(b"mfra") - 4]
    path = tmp_path / name
    path.write_bytes(claim_more(raw, more + 8))  # a RIFF may count its own first bytes in
    assert_shows(path, reference(whole))


@pytest.mark.parametrize("format", ["avi", "matroska", "flv", "nut"])
def test_a_file_written_to_a_pipe(format: str, tmp_path: Path) -> None:
    film = Film("flv" if format == "flv" else "mpeg4", count=40)
    source = film.write(tmp_path / f"film.{'mkv' if format == 'matroska' else format}")
    assert_exact(pipe(source, tmp_path / f"piped.{format}", format))


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_riff_that_does_not_know_its_size(size: bytes, tmp_path: Path) -> None:
    path = FILM.write(tmp_path / "film.avi")
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + size + raw[8:])
    assert_exact(path)


@pytest.mark.parametrize("parts", [(FILM,), (FILM, "3"), ("3", FILM)], ids=["alone", "av", "va"])
@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
def test_a_file_that_was_cut_off_fails_where_a_frame_was_lost(
    parts: tuple, name: str, tmp_path: Path
) -> None:
    """And nowhere else gives other frames: what it shows is all that it had."""
    if name.endswith("avi"):
        parts = (FILM,)
    whole = write_streams(tmp_path / f"whole_{name}", *parts)
    if name.endswith("mp4"):
        with (
            av.open(str(whole)) as source,
            av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as copy,
        ):
            streams = {s.index: copy.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    copy.mux(packet)
        whole = tmp_path / "fast.mp4"
    raw, expected = whole.read_bytes(), reference(FILM.write(tmp_path / f"alone_{name}"))
    with av.open(str(whole)) as container:
        film = next(s for s in container.streams if s.type == "video")
        last = max(p.pos + p.size for p in container.demux(film) if p.size)
    path = tmp_path / f"cut_{name}"
    shown, reasons = 0, []
    for size in sorted(
        {*np.linspace(last - 2000, len(raw), 40).astype(int).tolist(), last, last - 1}
    ):
        path.write_bytes(raw[:size])
        try:
            found, _ = collect(path, np.arange)
        except VideoError as error:
            reasons.append(str(error))
            continue
        assert size >= last
        shown += 1
        for k, picture in enumerate(expected):
            np.testing.assert_array_equal(found[k], picture)
        assert len(found) == len(expected)
    assert all(reason.startswith("cut off:") for reason in reasons)
    assert shown >= (1 if last == len(raw) else 2)  # the whole one, and what lacks no frame


def test_the_scan_looks_only_where_it_has_to(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", Film(count=2)), ("b.mkv", Film("mpeg2video", count=2))):
        with open_video(codec.write(tmp_path / name)) as (container, stream):
            assert hidden_packets(stream) is None
            assert len(scan(container, stream)) == 2
