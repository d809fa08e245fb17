"""Which files are videos, by their names: what FFmpeg opens, whatever the data set.

A suffix promises nothing: what bears one of these and is no video (TypeScript's `.ts`) fails with
FFmpeg's reason when it is decoded. Files that bear none of them are not opened.
"""

from __future__ import annotations

import os

USUAL = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))
"""Of two files that differ in nothing but the suffix, the one that has one of these is the video:
what lies beside it is a preview (`.gif`) or a leftover (`.ts`)."""

BY_FORMAT = {
    "mov": "mov mp4 qt 3gp 3g2 f4v ism ismv mj2 psp",
    "matroska": "mkv mk3d webm",
    "avi": "avi divx",
    "mpegts": "ts mts m2t m2ts trp",
    "mpeg": "mpg mpeg mpe vob mod tod evo",
    "mpegvideo": "m1v m2v mpv",
    "m4v": "m4v",
    "h264": "h264 264 h26l avc",
    "hevc": "hevc h265 265",
    "obu": "obu",
    "ivf": "ivf",
    "flv": "flv",
    "asf": "asf wmv",
    "ogg": "ogg ogv ogm",
    "nut": "nut",
    "rm": "rm rmvb",
    "mxf": "mxf",
    "dv": "dv dif",
    "wtv": "wtv",
    "gif": "gif",
}
"""The demuxers of `pcmci.extract.video.timeline.FORMATS`: what FFmpeg calls their files, and what
people do besides."""

SOUND_OR_STILL = frozenset(
    (".avif", ".heic", ".heif", ".isma", ".m4a", ".m4b", ".mka", ".mks", ".ra", ".wma")
)
"""Theirs too, and never a film."""

VIDEO_SUFFIXES = frozenset(f".{one}" for names in BY_FORMAT.values() for one in names.split())


def suffix(name: str) -> str:
    """Of a file's name or path, in lower case, with its dot; "" where it has none."""
    return os.path.splitext(name)[1].lower()


def is_video(name: str) -> bool:
    """Whether a file so called is taken for a video."""
    return suffix(name) in VIDEO_SUFFIXES
