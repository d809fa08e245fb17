"""What the parsers ask of files: text with lines to point at, safe names, videos found once.

Every complaint begins with its place, `FILE:LINE`, or `FILE: video 'x'` where lines say nothing.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import math
import os
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.complaints import MOST
from pcmci.extract.datasets.suffixes import USUAL, is_video, suffix
from pcmci.plain import is_utf8
from pcmci.remote.url import Place, Url

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
    """The whole file, UTF-8 with or without a byte order mark, or UTF-16 with one, as spreadsheet
    programs save "Unicode text". Raises AnnotationError."""
    raw = read_bytes(path)
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise AnnotationError(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from error


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
    if not is_utf8(text):
        raise AnnotationError(
            f"{place}: {text!r} cannot be a video's id: it is not UTF-8; rename it (convmv does "
            "whole folders)"
        )
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


MOST_LINKS = 4
"""Links within links that are followed: a farm of links has two, folders that link to each other
have no end."""


@dataclass
class Listing:
    """What lies under a folder.

    files: {path relative to the folder: path}, sorted. The rest are relative paths of what was
    left out. links_out: symbolic links out of the folder, links_in: to folders within it, both
    where links are not followed. broken: links to nothing. circles: links to a folder that they
    lie in. odd: objects of a bucket whose names no file can have. twice: pairs of names that links
    give to one file, both of which are listed.
    """

    files: dict[str, Place] = field(default_factory=dict)
    links_out: list[str] = field(default_factory=list)
    links_in: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    def ordered(self) -> Listing:
        lists = (self.links_out, self.links_in, self.broken, self.circles, self.odd, self.twice)
        return Listing(dict(sorted(self.files.items())), *map(sorted, lists))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in a line each."""
        take = "; --follow-links takes them"
        kinds = (
            (self.links_out, "symbolic links out of the folder not followed", take),
            (self.links_in, "symbolic links to folders not followed", take),
            (self.broken, "symbolic links lead nowhere", ""),
            (self.circles, "symbolic links not followed, for they lead back", ""),
            (self.odd, "names left out, for no file can be called so", ""),
            (self.twice, "files are there under two names, by links", ""),
        )
        return tuple(
            f"{len(names):,} {what}: {some(names)}{way}" for names, what, way in kinds if names
        )


def some(names: Collection[str], most: int = 3) -> str:
    """The first few: `a, b, c, …`."""
    shown = [name for name, _ in zip(names, range(most), strict=False)]
    return ", ".join([*shown, *["…"] * (len(names) > most)])


def list_files(
    root: Place, suffixes: Collection[str] | None = None, follow_links: bool = False
) -> Listing:
    """All files under `root`, or those with one of `suffixes`.

    Nothing hidden is listed. Symbolic links are taken only to files within `root`, unless
    `follow_links`. Raises UsageError where a folder cannot be listed, RemoteError where a URL
    cannot.
    """
    if isinstance(root, Url):
        return _list_url(root, suffixes)
    inside = os.path.realpath(root)
    found = Listing()
    names: dict[str, str] = {}  # of files, by where they really lie
    # a folder, those it lies in as they are without links, and how many links led to it
    folders: list[tuple[str, tuple[str, ...], int]] = [("", (inside,), 0)]
    while folders:
        prefix, above, links = folders.pop()
        try:
            # scandir, for it knows files from folders without asking the disk about each
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    here = os.path.join(above[-1], entry.name)
                    if entry.is_symlink():
                        here = os.path.realpath(entry.path)
                        if not follow_links and not Path(here).is_relative_to(inside):
                            found.links_out.append(name)
                            continue
                        if not os.path.exists(here):
                            found.broken.append(name)
                            continue
                    if entry.is_dir():
                        linked = links + entry.is_symlink()
                        if not entry.is_symlink():
                            folders.append((f"{name}/", (*above, here), links))
                        elif not follow_links:
                            found.links_in.append(name)
                        elif here in above or linked > MOST_LINKS:
                            found.circles.append(name)
                        else:
                            folders.append((f"{name}/", (*above, here), linked))
                    elif (suffixes is None or suffix(name) in suffixes) and entry.is_file():
                        found.files[name] = root / name
                        if names.setdefault(here, name) != name:
                            found.twice.append(" and ".join(sorted((names[here], name))))
        except OSError as error:
            raise UsageError(f"{root / prefix}: cannot be listed: {error.strerror}") from error
    return found.ordered()


def _list_url(root: Url, suffixes: Collection[str] | None) -> Listing:
    found = Listing()
    for name, url in root.files():
        parts = name.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if suffixes is not None and suffix(name) not in suffixes:
            continue
        if all(map(is_plain_name, parts)):
            found.files[name] = url
        elif parts[-1]:  # a bucket's own sign of a folder ends in a slash
            found.odd.append(name)
    return found.ordered()


class VideoTree:
    """The video files under a folder, listed once, to be found by where an annotation puts them.

    files: {path relative to the folder: path}. others: the paths of files that are no videos by
    their names. notes: what was left out.
    """

    def __init__(
        self,
        root: Place,
        follow_links: bool = False,
        counts: Callable[[str], bool] = is_video,
    ) -> None:
        """counts: whether a file of this name is a video, or stands for one."""
        self.root = root
        listing = list_files(root, follow_links=follow_links)
        self.files = {name: path for name, path in listing.files.items() if counts(name)}
        self.others = [name for name in listing.files if name not in self.files]
        self.notes = (*listing.notes, *self._leave_out_previews())
        self._by_stem: dict[str, list[str]] = {}
        for name in self.files:
            self._by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
        self._found = 0
        self._missed: list[str] = []
        self._twice: list[str] = []

    def _leave_out_previews(self) -> tuple[str, ...]:
        usual = {os.path.splitext(name)[0] for name in self.files if suffix(name) in USUAL}
        beside = [
            name
            for name in self.files
            if suffix(name) not in USUAL and os.path.splitext(name)[0] in usual
        ]
        for name in beside:
            del self.files[name]
        if not beside:
            return ()
        return (
            f"{len(beside):,} files left out, for a video of a more usual kind has the same name: "
            f"{some(beside)}",
        )

    def called(self, stem: str) -> list[str]:
        """The files, relative to the folder, that have this path but for their suffix."""
        return self._by_stem.get(stem, [])

    def find(self, *places: str) -> Place | None:
        """The one file at one of `places`, relative to the folder, or None.

        A place has the suffix that is usual for the data set; any video suffix will do. Where
        there are two, `require_some` raises.
        """
        stems = [os.path.splitext(place)[0] for place in places]
        names = [name for stem in stems for name in self.called(stem)]
        if len(names) > 1:
            self._twice.append(" and ".join(names))
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
        """Raises UsageError where nothing that was asked for is there, naming what was, and where
        a video is there twice, naming all that are."""
        if self._twice:
            shown = "; ".join(f"{names} are the same video" for names in self._twice[:MOST])
            more = f"; and {len(self._twice) - MOST:,} more" if len(self._twice) > MOST else ""
            raise UsageError(f"{self.root}: {shown}{more}: only one can stay")
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
        self.files, self.others, self.notes = {}, [], ()
        self._by_stem = {}
        self._found, self._missed, self._twice = 0, [], []

    def require_some(self) -> None:
        """None is needed."""


def tree_of(videos: Place | VideoTree, follow_links: bool) -> VideoTree:
    """The videos under a folder, or a tree that somebody has made already."""
    return videos if isinstance(videos, VideoTree) else VideoTree(videos, follow_links)
