"""From the name of a video as a table spells it to the file that is meant."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from pcmci.errors import AnnotationError
from pcmci.extract.datasets.files import VideoTree, is_plain_name, some
from pcmci.extract.datasets.suffixes import USUAL, is_video, suffix
from pcmci.plain import is_utf8
from pcmci.remote.url import Place


class NamedFiles:
    """The files of a tree by the names that a table has for them.

    inside: a folder under which names may be meant too, as `videos/`, or "".
    """

    def __init__(self, tree: VideoTree, inside: str) -> None:
        self._tree, self._inside = tree, inside
        self._roots = [f"{tree.root}/"]
        if isinstance(tree.root, Path):
            self._roots.append(f"{tree.root.absolute()}/")
        self._folded = _folded(tree.files)
        self._folded_stems = _folded({os.path.splitext(name)[0]: None for name in tree.files})
        self._users: dict[str, str] = {}
        self._differing: list[str] = []

    def has(self, name: str) -> bool:
        """Whether a file is called exactly so."""
        return name in self._tree.files

    def path_of(self, name: str, place: str) -> str:
        """`name` as a path under the tree: `./a/b.mp4`, `a\\b.mp4` and, where the tree lies in
        `/data/films`, `/data/films/a/b.mp4` are `a/b.mp4`.

        It does not depend on which files are there, so that an id does not. Raises AnnotationError
        where it is none.
        """
        path = next((name[len(r) :] for r in self._roots if name.startswith(r)), name)
        parts = [part for part in path.replace("\\", "/").split("/") if part != "."]
        if not is_utf8(name) or not all(map(is_plain_name, parts)):
            raise AnnotationError(
                f"{place}: {name!r} is no path of a file under {self._tree.root}, such as "
                "kitchen/clip1.mp4"
            )
        return "/".join(parts)

    def find(self, path: str, place: str) -> Place | None:
        """The file at `path`, which may lack its suffix, or differ from the file's in case or in
        Unicode form alone; None where there is none.

        Raises AnnotationError where several fit, where the only one is no video, or another row
        has it.
        """
        found = self._one(path, place)
        if found is not None:
            user = self._users.setdefault(found, place)
            if user != place:
                raise AnnotationError(f"{place}: {path!r} is the file {found}, as at {user}")
        return self._tree.at(found or path)

    @property
    def used(self) -> set[str]:
        """Relative paths of the files that were found."""
        return set(self._users)

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._differing:
            return ()
        return (
            f"{len(self._differing):,} names differ from their file's in case or in Unicode form "
            f"alone: {some(self._differing)}",
        )

    def _one(self, path: str, place: str) -> str | None:
        for differs in (False, True):
            for prefix in dict.fromkeys(("", self._inside)):
                names = self._called(prefix + path, differs)
                if len(names) > 1:
                    raise AnnotationError(
                        f"{place}: {path!r} may be {' or '.join(names)}; name it as it is called"
                    )
                if names:
                    if differs:
                        self._differing.append(_differs(path, names[0]))
                    return names[0]
        if not is_video(path) and suffix(path):
            raise AnnotationError(
                f"{place}: {path!r} is no video file; those end in {', '.join(sorted(USUAL))} and "
                "others that FFmpeg opens"
            )
        return None

    def _called(self, path: str, differs: bool) -> list[str]:
        """The files with this path; with `differs`, those that case or form sets apart."""
        if is_video(path):
            exact = [path] if path in self._tree.files else []
            return self._folded.get(_fold(path), []) if differs else exact
        stems = self._folded_stems.get(_fold(path), []) if differs else [path]
        return [name for stem in stems for name in self._tree.called(stem)]


def _differs(path: str, file: str) -> str:
    if unicodedata.normalize("NFC", path) == unicodedata.normalize("NFC", file):
        return f"{path!a} is {file!a}"  # they look the same
    return f"{path} is {file}"


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _folded(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Names by what they are but for their case and their form of Unicode."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(_fold(name), []).append(name)
    return by_fold
