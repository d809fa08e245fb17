"""Claim: 16 exact frames of a long video cost a fraction of what other readers take for them.

    python benchmarks/frames.py             three to four minutes on two cores
    python benchmarks/frames.py --quick     five seconds of each film

frames        time for 16 frames of a film: ours / PyAV decoding it in order, with all threads and
              with one; / decord; / torchcodec. Each as its manual shows, with its own defaults.
frames right  in how many files, the films and the real clips of --videos, a reader gives the very
              frames that are wanted, or fails where the file is damaged. Ours and PyAV to the last
              pixel; the others have a conversion to RGB of their own, so that their frame has to
              be nearer to the wanted one than to any other of the file.

The films are drawn and encoded here, at the bit rates of real clips of their size. Which frames
are right is for a decoding of the whole file to say, in the order of presentation, without what
the file marks as not to be shown, and turned upright. It knows nothing of pcmci.extract.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import claims
import numpy as np

from pcmci.extract.video.frames import FrameReader, iter_frames, sample_indices

FRAMES = 16
VIDEOS = Path(__file__).parents[2] / "shared/data/videos"
NEAR = 2.0
"""Grey levels. Two conversions to RGB differ by less; a picture that is further from every frame
of the file is none of them."""

Read = Callable[[Path], list[np.ndarray]]
"""From a file to its FRAMES frames, [H, W, 3] uint8 each, in order; a frame may come repeatedly."""


@dataclass(frozen=True)
class Film:
    """A video to encode: `gop` frames from key frame to key frame. size: width, height."""

    suffix: str
    codec: str
    seconds: int
    rate: int
    size: tuple[int, int]
    gop: int
    kbit: int  # a second

    @property
    def title(self) -> str:
        length = f"{self.seconds // 60} min" if self.seconds >= 60 else f"{self.seconds} s"
        width, height = self.size
        codec = self.codec.replace("libx", "h")
        return f"{length} {width}x{height} {self.rate} fps {codec} gop {self.gop}"

    def write(self, folder: str) -> Path:
        path = Path(folder) / f"{self.title.replace(' ', '_')}{self.suffix}"
        width, height = self.size
        rng = np.random.default_rng(0)
        # Blotches that drift over each other, and a little noise.
        blotches = rng.integers(0, 256, (2, height // 8 * 2, width // 8 * 2, 3), np.uint8)
        layers = blotches.repeat(8, 1).repeat(8, 2)
        noise = rng.integers(0, 5, (8, height, width, 3), np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(self.codec, rate=self.rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.bit_rate = 1000 * self.kbit
            stream.codec_context.gop_size = self.gop
            if self.codec == "libx264":
                stream.options = {"preset": "veryfast", "x264-params": f"min-keyint={self.gop}"}
            for k in range(self.seconds * self.rate):
                top, left = int(height / 2 * (1 + np.sin(k / 90))), k % width
                picture = layers[0, top : top + height, left : left + width] // 2
                picture += layers[1, :height, width - left : 2 * width - left] // 3
                picture += noise[k % 8]
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = k
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path


FILMS = (
    Film(".mp4", "libx264", 300, 15, (320, 240), 250, 350),
    Film(".mp4", "libx264", 300, 15, (320, 240), 15, 350),
    Film(".mp4", "libx264", 180, 30, (640, 360), 250, 700),
    Film(".mp4", "libx264", 180, 30, (640, 360), 30, 700),
    Film(".avi", "mpeg4", 300, 15, (320, 240), 12, 150),  # the format of Breakfast's
)
CLIP = Film(".mp4", "libx264", 10, 25, (320, 240), 250, 350)
"""Of one group of pictures, nearly all of which has to be decoded: no aim is set for it."""


def ours(path: Path) -> list[np.ndarray]:
    found = {place: frame for places, frame in iter_frames(path, FRAMES) for place in places}
    return [found[place] for place in range(FRAMES)]


def pyav(path: Path, threads: str) -> list[np.ndarray]:
    """Decode everything, keep what is wanted. The count is the header's, which costs nothing;
    where it has none the frames are counted first."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        if threads == "NONE":
            stream.codec_context.thread_count = 1
        wanted = Counter(sample_indices(stream.frames or counted(path), FRAMES)[0].tolist())
        kept: list[np.ndarray] = []
        for k, frame in enumerate(container.decode(stream)):
            if k in wanted:
                kept += [frame.to_ndarray(format="rgb24")] * wanted[k]
        return kept


def counted(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def decord(path: Path) -> list[np.ndarray]:
    from decord import VideoReader

    reader = VideoReader(str(path))
    return list(reader.get_batch(sample_indices(len(reader), FRAMES)[0].tolist()).asnumpy())


def torchcodec(path: Path) -> list[np.ndarray]:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact")
    wanted = sample_indices(len(decoder), FRAMES)[0].tolist()
    return list(decoder.get_frames_at(wanted).data.numpy())


@dataclass(frozen=True)
class Reader:
    """read: how it takes FRAMES frames of a file. same_pixels: it converts to RGB with the library
    that the truth uses. aims: what ours / this one is to be at most, where a key frame comes every
    250 frames and where they come more often."""

    read: Read
    same_pixels: bool
    aims: tuple[float, float]


OURS = "ours"
READERS = {
    OURS: Reader(ours, True, (1, 1)),
    "PyAV, all threads": Reader(lambda path: pyav(path, "AUTO"), True, (0.35, 0.08)),
    "PyAV, one thread": Reader(lambda path: pyav(path, "NONE"), True, (0.35, 0.08)),
    "decord": Reader(decord, False, (0.65, 0.6)),
    "torchcodec": Reader(torchcodec, False, (0.8, 1.0)),
}


@dataclass(frozen=True)
class Truth:
    """All frames of a video stream, upright, in the order of presentation.

    digests: [frames] of a picture's bytes. sparse: [frames, h, w, 3] uint8, some of its pixels.
    shape: [H, W, 3] of a picture. step: every how many pixels one is in `sparse`, both ways.
    """

    digests: list[bytes]
    sparse: np.ndarray
    shape: tuple[int, ...]
    step: int

    def nearest(self, picture: np.ndarray, wanted: int) -> int | None:
        """The frame that [H, W, 3] `picture` is: `wanted` if none is nearer, None for no frame."""
        thin = picture[:: self.step, :: self.step].astype(np.int16)
        far = np.array([np.abs(thin - one).mean() for one in self.sparse])
        if far.min() > NEAR:
            return None
        return wanted if far[wanted] <= far.min() else int(far.argmin())


def truths(path: Path) -> list[Truth]:
    """One of each video stream: which of them is meant, nobody says. Raises av.FFmpegError where
    decoding fails."""
    with av.open(str(path)) as container:
        streams = len(container.streams.video)
    return [_truth(path, number) for number in range(streams)]


def _truth(path: Path, number: int) -> Truth:
    digests, sparse = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[number]
        stream.codec_context.thread_count = 1
        step = max(1, max(stream.width, stream.height) // 64)
        # An empty packet repeats a picture in an AVI, and would end the decoding here.
        packets = (packet for packet in container.demux(stream) if packet.size)
        for packet in (*packets, None):
            for frame in stream.codec_context.decode(packet):
                picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                digests.append(_digest(picture))
                sparse.append(picture[::step, ::step].copy())
    return Truth(digests, np.stack(sparse), picture.shape, step)


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture)).digest()


@dataclass(frozen=True)
class Verdict:
    """fault: what is wrong with what a reader did, or an empty string. gave: there were frames, and
    no error."""

    fault: str
    gave: bool


def judge(path: Path, reader: Reader, expected: list[Truth]) -> Verdict:
    """expected: of each video stream, empty for a file that cannot be decoded."""
    try:
        given = reader.read(path)
    except Exception as error:
        return Verdict(type(error).__name__ if expected else "", gave=False)
    if not expected:
        return Verdict("damaged, and frames all the same", gave=True)
    if len(given) != FRAMES:
        return Verdict(f"{len(given)} of {FRAMES} frames", gave=True)
    shape = given[0].shape
    meant = [truth for truth in expected if truth.shape == shape]
    if not meant:
        return Verdict(f"{shape[1]}x{shape[0]}: not upright", gave=True)
    faults = [_fault(given, truth, reader.same_pixels) for truth in meant]
    return Verdict(min(faults, key=len), gave=True)


def _fault(given: list[np.ndarray], truth: Truth, same_pixels: bool) -> str:
    """What differs from `truth`, or an empty string."""
    off: list[int] = []
    strange = 0
    wanted = sample_indices(len(truth.digests), FRAMES)[0].tolist()
    for k, picture in zip(wanted, given, strict=True):
        if _digest(picture) == truth.digests[k]:
            continue
        found = truth.nearest(picture, k)
        if found is None or (same_pixels and found == k):
            strange += 1
        elif found != k:
            off.append(found - k)
    parts = []
    if off:
        reach = f"{min(off):+d}" if min(off) == max(off) else f"{min(off):+d} to {max(off):+d}"
        parts.append(f"{len(off)} of {FRAMES} are other frames, {reach}")
    if strange:
        parts.append(f"{strange} with other pixels")
    return ", ".join(parts)


def usable(path: Path) -> dict[str, Reader]:
    """Ours, and those of the others that can read this plain film; says which cannot. (torchcodec
    can be imported without the FFmpeg that it needs.)"""
    found = {}
    for name, reader in READERS.items():
        try:
            reader.read(path)
        except Exception as error:
            if name == OURS:
                raise
            first = str(error).strip().partition("\n")[0]
            print(f"{name} is left out: {type(error).__name__}: {first}"[:200], flush=True)
        else:
            found[name] = reader
    return found


def share_decoded(path: Path) -> str:
    """`12 %` of the file's frames came out of the decoder for ours."""
    reader, total = FrameReader(path), 0

    def choose(count: int) -> np.ndarray:
        nonlocal total
        total = count
        return sample_indices(count, FRAMES)[0]

    list(reader.read(choose))
    assert not reader.in_order, f"{path.name}: {reader.in_order}"
    return f"{100 * reader.decoded / total:.0f} %"


def times(film: Film, path: Path, rivals: dict[str, Reader], repeats: int) -> list[claims.Row]:
    """ours / each of the others, for one film."""
    kbit = path.stat().st_size / film.seconds / 125
    remark = f"ours decodes {share_decoded(path)} of {kbit:.0f} kbit/s"
    one_gop = film.gop >= film.seconds * film.rate
    rows = []
    for name, rival in rivals.items():
        aim = "" if one_gop else f"at most {rival.aims[film.gop < 250]:g}"
        # Judging has run both already.
        pairs = claims.paired(
            lambda: ours(path), lambda rival=rival: rival.read(path), repeats, warm=False
        )
        case = f"{film.title}: ours / {name}"
        rows.append(claims.ratio_row("frames", case, pairs, aim=aim, note=remark))
        remark = ""
    return rows


def right_row(name: str, verdicts: dict[str, Verdict]) -> claims.Row:
    """In how many files a reader is right; the note names the others."""
    faults = {file: verdict for file, verdict in verdicts.items() if verdict.fault}
    silent = [f"{file} ({one.fault})" for file, one in faults.items() if one.gave]
    loud = [f"{file} ({one.fault})" for file, one in faults.items() if not one.gave]
    parts = [f"{len(silent)} silently wrong" + ": " * bool(silent) + ", ".join(silent)]
    if loud:
        parts.append(f"{len(loud)} refused: " + ", ".join(loud))
    total = len(verdicts)
    return claims.row(
        "frames right",
        name,
        [total - len(faults)],
        unit=f"of {total} files",
        aim=f"at least {total}" if name == OURS else "",
        note="; ".join(parts),
    )


def clips(folder: Path | None) -> list[Path]:
    """The real videos; says so where there are none."""
    given = folder or VIDEOS
    if not given.is_dir():
        print(f"real clips are left out: there is no folder {given} (--videos)")
        return []
    return sorted(path for path in given.iterdir() if path.is_file())


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--videos", type=Path, help=f"folder of real clips (default: {VIDEOS})")
    options = parser.parse_args()
    films, repeats = (*FILMS, CLIP), options.repeats
    if options.quick:
        films, repeats = tuple(replace(film, seconds=5) for film in films), 1

    rows: list[claims.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        readers = usable(CLIP.write(folder))
        verdicts: dict[str, dict[str, Verdict]] = {name: {} for name in readers}

        def judge_all(path: Path) -> None:
            try:
                expected = truths(path)
            except av.FFmpegError:
                expected = []
            for name, reader in readers.items():
                verdicts[name][path.name] = judge(path, reader, expected)

        for film in films:
            path = film.write(folder)
            judge_all(path)
            # A reader that gives no frames cannot be timed; its row of `frames right` says why.
            rivals = {
                name: reader
                for name, reader in readers.items()
                if name != OURS and verdicts[name][path.name].gave
            }
            rows += times(film, path, rivals, repeats)
            path.unlink()
        for path in clips(options.videos):
            judge_all(path)
    rows += [right_row(name, found) for name, found in verdicts.items()]
    claims.publish(rows, options.json)


if __name__ == "__main__":
    main()
