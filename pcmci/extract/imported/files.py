"""One file of features a video, as this field writes them, to tokens [T, D].

`.npy` and `.npz` (MS-TCN, ActionFormer, video_features, clip-video-encode), `.pt` and `.pth`
(tensors alone, no pickled code), and one `.h5` with a dataset a video.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pcmci.errors import UsageError, VideoError

SUFFIXES = frozenset((".npy", ".npz", ".pt", ".pth"))
TOGETHER = (".h5", ".hdf5")

NEXT = "next: pcmci import --help says what is read, pcmci extract makes features of videos"
"""For who has no features yet."""


def is_features(name: str) -> bool:
    """Whether a file of this name holds features of a video."""
    return Path(name).suffix.lower() in SUFFIXES


LAYOUTS = ("TD", "DT")
"""What the two axes of a file are: time first (MS-TCN has it the other way round)."""


@dataclass(frozen=True)
class FeatureFiles:
    """The features under a folder, or in one HDF5 file.

    by_name: the path under the folder without its suffix, or the dataset's name -> where it lies.
    key: which array, in files that hold several.
    """

    root: Path
    by_name: dict[str, Path | str]
    key: str | None = None

    @classmethod
    def under(cls, root: Path, key: str | None = None) -> FeatureFiles:
        """Raises UsageError where there are none, or two of one name."""
        if root.suffix in TOGETHER and root.is_file():
            try:
                with h5py.File(root, "r") as file:
                    names: list[str] = []
                    file.visititems(lambda n, x: names.append(n) if _is_array(x) else None)
            except OSError as error:
                raise UsageError(f"{root} cannot be opened as HDF5: {error}") from error
            return cls(root, dict(zip(names, names, strict=True)), key)
        if not root.is_dir():
            raise UsageError(
                f"{root} is neither a folder of features nor an HDF5 file of them; {NEXT}"
            )
        found: dict[str, Path | str] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                name = path.relative_to(root).with_suffix("").as_posix()
                if name in found:
                    raise UsageError(f"{found[name]} and {path} are of the same name: keep one")
                found[name] = path
        if not found:
            raise UsageError(
                f"no features are under {root}; their files end in {', '.join(sorted(SUFFIXES))}, "
                f"or it is one .h5 with a dataset a video; {NEXT}"
            )
        return cls(root, found, key)

    def find(self, video: str, pattern: str) -> str | None:
        """The name of a video's features: `pattern` with its id, anywhere under the folder, or
        its path with slashes for `__`. Raises UsageError where there are two."""
        wanted = pattern.replace("{id}", video)
        named = [
            name
            for name in self._by_last.get(wanted.rpartition("/")[2], ())
            if name == wanted or name.endswith(f"/{wanted}")
        ]
        named = named or [n for n in (wanted.replace("__", "/"),) if n in self.by_name]
        if len(named) > 1:
            raise UsageError(
                f"{self.root}: {' and '.join(sorted(named)[:3])} are all of video {video!r}: "
                "keep one"
            )
        return named[0] if named else None

    @property
    def _by_last(self) -> dict[str, list[str]]:
        found = self.__dict__.get("_cached")
        if found is None:
            found = {}
            for name in self.by_name:
                found.setdefault(name.rpartition("/")[2], []).append(name)
            object.__setattr__(self, "_cached", found)
        return found

    def read(self, name: str) -> np.ndarray:
        """[a, b] float32, as the file has its axes. Raises VideoError with what is wrong."""
        where = self.by_name[name]
        try:
            array = self._dataset(where) if isinstance(where, str) else _array(where, self.key)
        except VideoError:
            raise
        except (OSError, ValueError, EOFError, KeyError, RuntimeError, TypeError) as error:
            line = (str(error) or type(error).__name__).splitlines()[0][:120]
            raise VideoError(f"its features cannot be read: {line}") from error
        if array.dtype.kind not in "fiu":
            raise VideoError(f"its features are {array.dtype}, no numbers")
        while array.ndim > 2 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 2 or 0 in array.shape:
            raise VideoError(f"its features have shape {list(array.shape)}, not two axes")
        return array.astype(np.float32)

    def _dataset(self, name: str) -> np.ndarray:
        with h5py.File(self.root, "r") as file:
            return np.asarray(file[name])

    def digest(self, names: list[str]) -> str:
        """sha256 over the content of these, in their order."""
        sha = hashlib.sha256()
        for name in names:
            where = self.by_name[name]
            sha.update(name.encode() + b"\0")
            if isinstance(where, str):
                try:
                    array = self._dataset(where)
                except (OSError, KeyError, RuntimeError, ValueError, TypeError):
                    sha.update(b"unreadable")  # said of its video, by `read`
                    continue
                sha.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
            else:
                with where.open("rb") as file:
                    sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()


def _is_array(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def _array(path: Path, key: str | None) -> np.ndarray:
    if path.suffix.lower() in (".pt", ".pth"):
        import torch

        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise VideoError("its file holds more than tensors, and is not executed") from error
        chosen = _one_of(content, key) if isinstance(content, dict) else content
        if not isinstance(chosen, torch.Tensor):
            raise VideoError(f"its file holds a {type(chosen).__name__}, no tensor")
        return np.asarray(chosen.detach().float().numpy())
    try:
        content = np.load(path, allow_pickle=False)
    except zipfile.BadZipFile as error:
        raise VideoError(f"its features cannot be read: {error}") from error
    if isinstance(content, np.ndarray):
        return content
    with content:
        return np.asarray(content[_one_of({name: name for name in content.files}, key)])


def _one_of(arrays: dict[str, Any], key: str | None) -> Any:
    if key is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if key is None or key not in arrays:
        asked = "say which: --key" if key is None else f"none is called {key!r}"
        raise VideoError(f"its file holds {', '.join(map(str, arrays))[:100]}; {asked}")
    return arrays[key]


def guess_layout(shapes: list[tuple[int, ...]]) -> str:
    """`TD` or `DT`, where only one fits: the axis that is the same in all files is D.

    Raises UsageError where both are, or neither.
    """
    constant = [len({shape[axis] for shape in shapes}) == 1 for axis in (0, 1)]
    if constant == [False, True]:
        return "TD"
    if constant == [True, False]:
        return "DT"
    shown = ", ".join(str(list(shape)) for shape in shapes[:3])
    why = "both axes are the same in all" if all(constant) else "no axis is the same in all"
    raise UsageError(
        f"shapes {shown}, …: {why}; say --layout TD where time comes first, or --layout DT"
    )


def pool(tokens: np.ndarray, frames: int, how: str) -> np.ndarray:
    """[T, D] to [L, D], of each of L equal parts its middle or its mean.

    A video of fewer than L tokens gives some of them several times.
    """
    count = len(tokens)
    if count == frames:
        return tokens
    return POOLS[how](tokens, frames)


def _middle(tokens: np.ndarray, frames: int) -> np.ndarray:
    """As `pcmci.extract.video.frames.sample_indices` takes frames."""
    parts = np.arange(frames)
    return tokens[(2 * parts + 1) * len(tokens) // (2 * frames)]


def _mean(tokens: np.ndarray, frames: int) -> np.ndarray:
    borders = np.arange(frames + 1) * len(tokens) // frames
    spans = [(a, max(b, a + 1)) for a, b in itertools.pairwise(borders)]
    return np.stack([tokens[a:b].mean(0) for a, b in spans])


POOLS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"middle": _middle, "mean": _mean}
