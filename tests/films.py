"""Video files of the kinds that people have and FFmpeg's encoders do not write by themselves: made
of `Film`s by muxing several, or by editing bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from test_frames import Film, draw

VOP = b"\0\0\1\xb6"
Piece = tuple[bytes, bool]
"""A packet's bytes, and whether it is a key frame."""


@dataclass(frozen=True)
class Picture:
    """A cover: one frame, as a stream."""

    codec: str = "mjpeg"
    size: tuple[int, int] = (96, 96)

    def encode(self, container, disposition: Disposition | None) -> list[av.Packet]:
        stream = container.add_stream(self.codec, rate=1)
        stream.width, stream.height = self.size
        stream.pix_fmt = "rgb24" if self.codec == "png" else "yuvj420p"
        if disposition is not None:
            stream.disposition = disposition
        frame = av.VideoFrame.from_ndarray(draw(3, *self.size), format="rgb24")
        frame.pts = 0
        return [*stream.encode(frame), *stream.encode(None)]


def write_streams(
    path: Path,
    *parts: Film | Picture | str,
    flags: Sequence[Disposition | None] = (),
    attached: bool = False,
) -> Path:
    """Several streams in one file, in this order. A text is a sound of so many seconds. attached:
    a cover as Matroska has them."""
    flags = [*flags, *[None] * (len(parts) - len(flags))]
    packets: list[av.Packet] = []
    sources = []
    with av.open(str(path), "w") as container:
        for k, (part, flag) in enumerate(zip(parts, flags, strict=True)):
            if isinstance(part, Picture):
                packets += part.encode(container, flag)
            elif isinstance(part, str):
                sound = container.add_stream("aac", rate=16000)
                for _ in range(int(part)):
                    one = av.AudioFrame.from_ndarray(np.zeros((1, 16000), "f4"), "fltp", "mono")
                    one.sample_rate = 16000
                    packets += sound.encode(one)
                packets += sound.encode(None)
            else:
                suffix = ".mkv" if path.suffix in (".mkv", ".webm") else path.suffix
                source = av.open(str(part.write(path.with_name(f"part{k}{suffix}"))))
                sources.append(source)
                stream = container.add_stream_from_template(source.streams.video[0])
                if flag is not None:
                    stream.disposition = flag
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        packets.append(packet)
        if attached:
            jpeg = cover_file(path.with_name("cover.jpg"))
            container.add_attachment("cover.jpg", "image/jpeg", jpeg)
        container.start_encoding()
        container.mux(packets)
    for source in sources:
        source.close()
    return path


def cover_file(path: Path) -> bytes:
    """A JPEG."""
    with av.open(str(path), "w", format="image2") as container:
        container.mux(Picture().encode(container, None))
    return path.read_bytes()


def packets_of(path: Path) -> list[Piece]:
    with av.open(str(path)) as container:
        return [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]


def mux(source: Path, target: Path, pieces: Iterable[Piece]) -> Path:
    """These packets as they are, one every 40 ms, in a stream like that of `source`."""
    # Else the muxer would put hidden VP9 frames into one packet with the next.
    with (
        av.open(str(source)) as whole,
        av.open(str(target), "w", options={"fflags": "-autobsf"}) as copy,
    ):
        stream = copy.add_stream_from_template(whole.streams.video[0], opaque=True)
        for k, (data, key) in enumerate(pieces):
            packet = av.Packet(data)
            packet.pts = packet.dts = k * 40
            packet.duration, packet.time_base = 40, Fraction(1, 1000)
            packet.is_keyframe, packet.stream = key, stream
            copy.mux(packet)
    return target


def nothing_new(vop: bytes, bits: int = 5) -> bytes:
    """An MPEG-4 picture of this one's type and time (of `bits` bits) with vop_coded 0."""
    begin = vop.find(VOP) + 4
    header = "".join(f"{byte:08b}" for byte in vop[begin : begin + 8])
    marker = header.index("0", 2) + 1
    kind = "01" if header[:2] == "00" else header[:2]
    left = kind + header[2 : marker + 1 + bits] + "1" + "0"
    left += "0" + "1" * (-(len(left) + 1) % 8)
    whole = bytes(int(left[k : k + 8], 2) for k in range(0, len(left), 8))
    return (VOP + whole).ljust(7, b"\x7f")


def drop_frames(source: Path, target: Path, dropped: Callable[[int], bool]) -> Path:
    """As Xvid writes a frame that it dropped: a packet of seven bytes."""
    return mux(
        source,
        target,
        [
            (nothing_new(data), False) if dropped(k) else (data, key)
            for k, (data, key) in enumerate(packets_of(source))
        ],
    )


def pack_b_frames(source: Path, target: Path) -> Path:
    """DivX's "packed bitstream": a B-frame lies in the packet before its own."""
    pieces = packets_of(source)
    kinds = [data[data.find(VOP) + 4] >> 6 for data, _ in pieces]
    packed: list[Piece] = []
    k = 0
    while k < len(pieces):
        data, key = pieces[k]
        if k == 0:
            begin = data.find(b"\0\0\1\xb3")
            data = data[:begin] + b"\0\0\1\xb2DivX503b1393p" + data[begin:]
        if k + 1 < len(pieces) and kinds[k + 1] == 2:
            packed += [(data + pieces[k + 1][0], key), (nothing_new(data), False)]
            k += 1
        else:
            packed.append((data, key))
        k += 1
    return mux(source, target, packed)


def hide_keys(source: Path, target: Path, together: bool) -> Path:
    """Every VP9 key frame hidden, and shown by the next frame; `together`: as a superframe."""
    pieces: list[Piece] = []
    for data, key in packets_of(source):
        if not key:
            pieces.append((data, key))
            continue
        hidden, show = bytes([data[0] & ~2]) + data[1:], b"\x88"
        mark = bytes([0xC0 | 1 << 3 | 1])
        sizes = b"".join(len(part).to_bytes(2, "little") for part in (hidden, show))
        both = hidden + show + mark + sizes + mark
        pieces += [(both, True)] if together else [(hidden, True), (show, False)]
    return mux(source, target, pieces)


def split_frames(source: Path, target: Path) -> Path:
    """AV1 with a packet for each picture, hidden ones too."""
    with av.open(str(source)) as whole:
        stream = whole.streams.video[0]
        split = BitStreamFilterContext("av1_frame_split", stream)
        parts = [
            part for packet in whole.demux(stream) if packet.size for part in split.filter(packet)
        ]
        parts += split.filter(None)
        pieces = [(bytes(part), part.is_keyframe) for part in parts]
    return mux(source, target, pieces)


def write_palette(
    path: Path, count: int = 30, change: bool = False, codec: str = "rawvideo"
) -> Path:
    """Eight bits a pixel and a palette, which the container gives; `change`: several."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "pal8"
        for k in range(count):
            frame = av.VideoFrame(32, 24, "pal8")
            rng = np.random.default_rng(k)
            shades = rng.integers(0, 256, frame.planes[0].buffer_size, dtype=np.uint8)
            frame.planes[0].update(shades.tobytes())
            colours = np.random.default_rng(k // 10 if change else 0)
            frame.planes[1].update(colours.integers(0, 256, 1024, dtype=np.uint8).tobytes())
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_edits(raw: bytes, edits: Sequence[tuple[int, int | None]]) -> bytes:
    """An MP4 of 25 frames a second, with one track and a list of one edit, with this list instead:
    how many frames, from which on; None for nothing shown so long."""
    at = raw.find(b"elst")
    scale = {
        name: struct.unpack(">I", raw[raw.find(name) + 16 :][:4])[0] for name in (b"mdhd", b"mvhd")
    }
    first = struct.unpack(">i", raw[at + 16 : at + 20])[0]
    entries = b"".join(
        struct.pack(
            ">IiI",
            count * scale[b"mvhd"] // 25,
            -1 if start is None else first + start * scale[b"mdhd"] // 25,
            0x10000,
        )
        for count, start in edits
    )
    box = b"elst" + bytes(4) + struct.pack(">I", len(edits)) + entries
    before = struct.unpack(">I", raw[at - 4 : at])[0]
    grown = len(box) + 4 - before
    edited = bytearray(
        raw[: at - 4] + struct.pack(">I", len(box) + 4) + box + raw[at - 4 + before :]
    )
    for name in (b"edts", b"trak", b"moov"):
        place = edited.rfind(name, 0, at) - 4
        size = struct.unpack(">I", edited[place : place + 4])[0] + grown
        edited[place : place + 4] = struct.pack(">I", size)
    if raw.find(b"mdat") > at and grown:  # samples lie further on
        _shift_samples(edited, grown)
    return bytes(edited)


def _shift_samples(edited: bytearray, by: int) -> None:
    at = edited.find(b"stco")
    count = struct.unpack(">I", edited[at + 8 : at + 12])[0]
    for place in range(at + 12, at + 12 + 4 * count, 4):
        offset = struct.unpack(">I", edited[place : place + 4])[0] + by
        edited[place : place + 4] = struct.pack(">I", offset)


class Pipe:
    """A file that cannot be gone back in."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += bytes(data)
        return len(data)


def pipe(source: Path, target: Path, format: str) -> Path:
    """The same film written to a pipe."""
    out = Pipe()
    with av.open(str(source)) as whole, av.open(out, "w", format=format) as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    target.write_bytes(out.content)
    return target


def claim_more(raw: bytes, more: int) -> bytes:
    """The outermost box says that there is so much more of it than there is."""
    if raw[:4] == b"RIFF":
        return raw[:4] + struct.pack("<I", int.from_bytes(raw[4:8], "little") + more) + raw[8:]
    if raw[:4] == b"\x1aE\xdf\xa3":
        at = raw.find(b"\x18\x53\x80\x67") + 4
        assert raw[at] == 1, "the size has eight bytes"
        size = int.from_bytes(raw[at + 1 : at + 8], "big") + more
        return raw[: at + 1] + size.to_bytes(7, "big") + raw[at + 8 :]
    at = raw.rfind(b"mdat") - 4
    return (
        raw[:at] + struct.pack(">I", int.from_bytes(raw[at : at + 4], "big") + more) + raw[at + 4 :]
    )


def hurt_packets(path: Path, target: Path, which: Sequence[int]) -> Path:
    """Zeros in the place of all but the first bytes of these packets."""
    raw = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        found = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for k in which:
        begin, size = found[k]
        raw[begin + min(12, size) : begin + size] = bytes(max(size - 12, 0))
    target.write_bytes(raw)
    return target
