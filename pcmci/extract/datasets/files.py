"""What the parsers ask of files: text with lines to point at, safe names, videos found once.

Every complaint begins with its place, `FILE:LINE`, or `FILE: video 'x'` where lines say nothing.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pcmci.errors import AnnotationError, UsageError
from pcmci.remote.url import Place, Url

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


MOST_BYTES = 256 * 2**20
"""Of an annotation file, unpacked; the largest of the benchmarks has 17 MB."""


def read_bytes(path: Place) -> bytes:
    """The whole file, a .gz unpacked. Raises AnnotationError, also where that would
    be more than MOST_BYTES: it is then no annotation, whatever it says; RemoteError for a URL."""
    try:
        if isinstance(path, Url):
            raw = path.read(MOST_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(raw)) as file:
                raw = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise AnnotationError(f"{path}: cannot be read: {why}") from error
    if len(raw) > MOST_BYTES:
        raise AnnotationError(
            f"{path}: more than {MOST_BYTES >> 20} MiB: no annotation is that large"
        )
    return raw


def read_text(path: Place) -> str:
    """The whole file, UTF-8 with or without a byte order mark. Raises AnnotationError."""
    raw = read_bytes(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise AnnotationError(f"{path}:{line}: not UTF-8 text") from error


def read_rows(path: Place, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header, each as (`FILE:LINE`, {column: value}).

    Raises AnnotationError where one of `columns` is missing or a row is not as long as the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        for column in columns:
            if header.count(column) != 1:
                there = f"there are {', '.join(header)}" if header else "the file is empty"
                raise AnnotationError(f"{path}:1: needs one column {column!r}; {there}")
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise AnnotationError(
                    f"{place}: {len(row)} values, but the header has {len(header)} columns"
                )
            yield place, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise AnnotationError(f"{path}:{reader.line_num}: broken CSV: {error}") from error


def is_plain(text: str) -> bool:
    """Whether `text` is neither empty nor holds control characters or broken Unicode."""
    return bool(text.strip()) and all(unicodedata.category(c) not in ("Cc", "Cs") for c in text)


def is_plain_name(text: str) -> bool:
    """Whether `text` can name a file in a folder and nothing else: no path, nothing hidden."""
    return is_plain(text) and not text.startswith(".") and not set(text) & {"/", "\\"}


def new_id(text: str, place: str, seen: dict[str, str]) -> str:
    """`text`, where it can be a video's id and is not in `seen`, to which it is added.

    seen: {id: its place}. Raises AnnotationError.
    """
    if not is_plain_name(text):
        raise AnnotationError(
            f"{place}: {text!r} cannot be a video's id: an id is not empty and has no slash, "
            "no control character and no leading dot"
        )
    if text in seen:
        raise AnnotationError(f"{place}: video {text!r} is there already, at {seen[text]}")
    seen[text] = place
    return text


def time_span(start: Any, end: Any, place: str) -> tuple[float, float]:
    """(start, end) in seconds, from numbers or their text. Raises AnnotationError."""
    try:
        span = float(start), float(end)
    except (TypeError, ValueError, OverflowError):
        span = math.nan, math.nan
    if not 0 <= span[0] <= span[1] < math.inf:
        raise AnnotationError(
            f"{place}: {start!r} to {end!r} is no span of time; right would be two numbers of "
            "seconds, from 0 on, the end not before the start"
        )
    return span


def list_files(root: Place, suffixes: Collection[str]) -> tuple[dict[str, Place], list[str]]:
    """All files under `root` with one of `suffixes`, as {path relative to `root`: path}.

    Nothing hidden is listed. Symbolic links are taken only to files within `root`; the second
    value names those that lead out of it. Raises UsageError where a folder cannot be listed,
    RemoteError where a URL cannot.
    """
    if isinstance(root, Url):
        return _list_url(root, suffixes), []
    inside = os.path.realpath(root)
    files: dict[str, Place] = {}
    links_out: list[str] = []
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            # scandir, for it knows files from folders without asking the disk about each
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink() and not _within(entry.path, inside):
                        links_out.append(name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif os.path.splitext(name)[1].lower() in suffixes and entry.is_file():
                        files[name] = root / name
        except OSError as error:
            raise UsageError(f"{root / prefix}: cannot be listed: {error.strerror}") from error
    return dict(sorted(files.items())), sorted(links_out)


def _list_url(root: Url, suffixes: Collection[str]) -> dict[str, Place]:
    return {
        name: url
        for name, url in sorted(root.files())
        if os.path.splitext(name)[1].lower() in suffixes
        and all(map(is_plain_name, name.split("/")))
    }


def links_note(links_out: list[str]) -> tuple[str, ...]:
    """The note for links that `list_files` did not follow, if any."""
    if not links_out:
        return ()
    return (f"{len(links_out)} symbolic links out of the folder not followed: {links_out[0]}, …",)


class VideoTree:
    """The video files under a folder, listed once, to be found by where an annotation puts them.

    files: {path relative to the folder: path}.
    """

    def __init__(self, root: Place, suffixes: Collection[str] = VIDEO_SUFFIXES) -> None:
        self.root = root
        self.files, links_out = list_files(root, suffixes)
        self.notes = links_note(links_out)
        self._by_stem: dict[str, list[str]] = {}
        for name in self.files:
            self._by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
        self._found = 0
        self._missed: list[str] = []

    def find(self, *places: str) -> Place | None:
        """The one file at one of `places`, relative to the folder, or None.

        A place has the suffix that is usual for the data set; any video suffix will do.
        Raises UsageError where there are two.
        """
        stems = [os.path.splitext(place)[0] for place in places]
        names = [name for stem in stems for name in self._by_stem.get(stem, ())]
        if len(names) > 1:
            raise UsageError(
                f"{self.root}: {' and '.join(names)} are the same video: only one can stay"
            )
        return self.at(names[0] if names else places[0])

    def at(self, place: str) -> Place | None:
        """The file at exactly this place, relative to the folder, or None."""
        path = self.files.get(place)
        if path is None:
            self._missed.append(place)
        else:
            self._found += 1
        return path

    def require_some(self) -> None:
        """Raises UsageError where nothing that was asked for is there, naming what was."""
        if self._found:
            return
        if not self._missed:
            raise AnnotationError("the annotation names no video")
        examples = ", ".join(str(self.root / place) for place in self._missed[:3])
        raise UsageError(
            f"none of the {len(self._missed):,} annotated videos is there; expected for example "
            + "; ".join((examples, *self.notes, "--videos names another folder"))
        )


class NoVideos(VideoTree):
    """Of a data set whose annotations alone are asked for: no video is anywhere."""

    def __init__(self) -> None:
        self.root = Path("nowhere")
        self.files, self.notes = {}, ()
        self._by_stem = {}
        self._found, self._missed = 0, []

    def require_some(self) -> None:
        """None is needed."""


def tree_of(videos: Place | VideoTree) -> VideoTree:
    """The videos under a folder, or a tree that somebody has made already."""
    return videos if isinstance(videos, VideoTree) else VideoTree(videos)


def _within(path: str, inside: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(inside)
