"""Packets that become no frame: pictures that others only refer to, and "nothing new" said in a
few bytes. The first bits of a packet tell; only codecs that have such packets are looked at."""

from __future__ import annotations

import re
from collections.abc import Callable

from av.packet import Packet
from av.video.stream import VideoStream

Hides = Callable[[Packet], bool]
"""Whether a packet becomes no frame; asked once for each, in the order of the file."""

NOTHING_NEW = 19
"""Bytes that an MPEG-4 picture without content takes at most, as encoders pad it."""

VOP = b"\0\0\1\xb6"
"""The start code of an MPEG-4 picture (ISO 14496-2, 6.2.5)."""

LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
"""That of a video object layer, which says how pictures are written."""


def hidden_packets(stream: VideoStream) -> Hides | None:
    """How to tell them in this stream; None where every packet is a frame."""
    codec = stream.codec_context
    name = codec.codec.canonical_name
    if name == "mpeg4":
        return _Mpeg4(codec.extradata or b"")
    return {"vp8": _vp8, "vp9": _vp9, "av1": _av1}.get(name)


def shows_at_the_end(stream: VideoStream) -> bool:
    """Whether the decoder gives the last picture once more for a hidden packet that ends a file."""
    return stream.codec_context.codec.canonical_name == "mpeg4"


def _vp8(packet: Packet) -> bool:
    """RFC 6386, section 9.1: show_frame."""
    return not memoryview(packet)[0] & 0x10


def _vp9(packet: Packet) -> bool:
    """VP9 bitstream specification, 6.2 and annex B: a packet is a frame, or a superframe of
    several with an index behind them."""
    data = memoryview(packet)
    if _vp9_shown(data[0]):
        return False
    mark = data[-1]
    if mark & 0xE0 != 0xC0:
        return True
    count, width = (mark & 7) + 1, (mark >> 3 & 3) + 1
    at = len(data) - 2 - count * width
    if at < 0 or data[at] != mark:
        return True
    begin = 0
    for entry in range(at + 1, len(data) - 1, width):
        if begin < at and _vp9_shown(data[begin]):
            return False
        begin += int.from_bytes(data[entry : entry + width], "little")
    return True


def _vp9_shown(first: int) -> bool:
    """frame_marker 2, profile 2 (3: one more), show_existing_frame, frame_type, show_frame."""
    if first & 0x30 == 0x30:
        return bool(first & 0b101)
    return bool(first & 0b1010)


def _av1(packet: Packet) -> bool:
    """AV1 specification, 5.3 and 5.9: a packet is OBUs; frame headers begin with
    show_existing_frame 1, frame_type 2, show_frame 1."""
    data = memoryview(packet)
    at, hidden = 0, False
    while at < len(data):
        head = data[at]
        kind, at = head >> 3 & 15, at + 1 + (head >> 2 & 1)
        if head & 0x80 or not (1 <= kind <= 8 or kind == 15):
            return False  # damage: for the decoder to say
        size = len(data) - at
        if head & 2:
            size = shift = 0
            for _ in range(8):
                if at >= len(data):
                    return False
                size |= (data[at] & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if not data[at - 1] & 0x80:
                    break
        if at >= len(data):
            break
        if kind == 1 and data[at] & 0x08:  # reduced_still_picture_header: always shown
            return False
        if kind in (3, 6):  # a frame header, a frame
            if data[at] & 0x90:
                return False
            hidden = True
        at += size
    return hidden


class _Mpeg4:
    """ISO 14496-2, 6.2.5: a picture with vop_coded 0 (Xvid and DivX write one where a frame was
    dropped) has no content.

    After a packet of two pictures it only keeps the second one's place (the "packed bitstream" of
    AVIs with B-frames), and is a frame.
    """

    def __init__(self, extradata: bytes) -> None:
        self._bits = _time_bits(extradata)
        self._before: Packet | None = None

    def __call__(self, packet: Packet) -> bool:
        before, self._before = self._before, packet
        if not self._bits and packet.is_keyframe:
            self._bits = _time_bits(bytes(packet))
        if packet.size > NOTHING_NEW or not self._bits:
            return False
        raw = bytes(packet)
        at = raw.find(VOP)
        if at < 0 or _coded(raw[at + len(VOP) :], self._bits):
            return False
        return before is None or bytes(before).count(VOP) < 2


def _coded(header: bytes, time_bits: int) -> bool:
    """vop_coded: after vop_coding_type 2, ones, a zero, a marker, vop_time_increment, a marker."""
    bits = "".join(f"{byte:08b}" for byte in header)
    at = bits.find("0", 2) + 2 + time_bits + 1
    return bits[at : at + 1] != "0"


def _time_bits(headers: bytes) -> int:
    """How many bits vop_time_increment has, as the video object layer says (6.2.3); 0 where there
    is none."""
    layer = LAYER.search(headers)
    if layer is None:
        return 0
    bits = "".join(f"{byte:08b}" for byte in headers[layer.end() : layer.end() + 36])
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place] or "0", 2)

    take(1 + 8)
    version = take(7) >> 3 if take(1) else 1
    if take(4) == 15:  # the shape of a pixel, in so many bits
        take(16)
    if take(1):  # vol_control_parameters
        take(3)
        if take(1):
            take(79)
    if take(2) == 3 and version != 1:
        take(4)
    take(1)
    return max(1, (take(16) - 1).bit_length())
