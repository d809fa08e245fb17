"""What can be decoded, by the FFmpeg that PyAV brings, and whether it works from end to end."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pcmci.doctor.findings import Finding

DECODERS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1", "libgav1"),  # the one called av1 needs hardware
    "mpeg4": ("mpeg4",),
    "mpeg2": ("mpeg2video",),
}
"""What videos of data sets and of the web are in -> FFmpeg's decoders of it, any of which does."""

ENCODER = "libx264"
"""What the kitchen world is written with, and the video that goes there and back."""

FRAMES, SIZE, SECONDS = 8, 32, 60


def codecs() -> Finding:
    """Of the decoders that are needed, those that are there."""
    try:
        import av
    except ImportError as error:
        return Finding("codecs", "fails", f"PyAV cannot be loaded: {error}: pip install -U av")
    lacking = [
        name for name, any_of in DECODERS.items() if not any(_is_there(one, "r") for one in any_of)
    ]
    if not _is_there(ENCODER, "w"):
        lacking.append(f"{ENCODER} (pcmci demo and pcmci kitchen write with it)")
    of = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    if lacking:
        return Finding("codecs", "fails", f"{of} lacks {', '.join(lacking)}: pip install -U av")
    return Finding("codecs", "ok", f"{', '.join(DECODERS)}; {of}")


def _is_there(name: str, mode: str) -> bool:
    from av.codec import Codec, codecs_available

    if name not in codecs_available:
        return False
    try:
        Codec(name, mode)  # type: ignore[arg-type]
    except ValueError:  # it is there for the other direction alone
        return False
    return True


def there_and_back() -> Finding:
    """A video written, and read by a process that decodes, as an extraction does it."""
    try:
        with tempfile.TemporaryDirectory(prefix="pcmci-") as folder:
            film = Path(folder) / "film.mp4"
            _write(film)
            found = _read(film)
    except Exception as error:  # whatever it is, it would happen to every video
        return Finding("decoding", "fails", f"{type(error).__name__}: {error}"[:200])
    if found != FRAMES:
        return Finding("decoding", "fails", f"of {FRAMES} frames written {found} came back")
    return Finding("decoding", "ok", "a video was written, and read by a process of its own")


def _write(film: Path) -> None:
    import av
    import numpy as np

    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for number in range(FRAMES):
            grey = np.full((SIZE, SIZE, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())


def _read(film: Path) -> int:
    """How many frames came, each brighter than the one before."""
    import contextlib

    from pcmci.cache.schema import Preprocessing, Sampling
    from pcmci.extract.video.decoding import Decoder, Input

    none = (0.0, 0.0, 0.0)
    wanted = Input(Preprocessing(SIZE, SIZE, "bilinear", none, none), 1)
    with contextlib.closing(Decoder(Sampling(FRAMES, 1), {"any": wanted}, SECONDS)) as decoder:
        frames = decoder.prepare(film)["any"]
    bright = frames.reshape(len(frames), -1).mean(1)
    return 1 + int((bright[1:] > bright[:-1]).sum())
