"""Run folders as they lie on a disk: what each is, how large it is, and why one is none.

Nothing here knows torch, and no array is read: a listing of hundreds of runs takes a second.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcmci.errors import UsageError
from pcmci.heads.catalogue import DEFAULT, HEADS, head_settings, train_settings
from pcmci.heads.config import order_name
from pcmci.heads.training.held import is_held

RUN_FORMAT = 1
"""Of a run's config.json; the newest that this program reads."""

DONE, UNFINISHED, DIVERGED, BROKEN = "done", "unfinished", "diverged", "broken"
STATES = (DONE, UNFINISHED, DIVERGED, BROKEN)
"""What a folder can be: a run; one that is being trained, or was when its process was killed; the
record of a run whose loss was lost; a run of which something is missing or damaged."""

DEEPEST = 3
"""Folders under the one that is asked about in which runs are looked for."""

_NAME = re.compile(r"^.+_seed\d+_[0-9a-f]{8}$")
_HALF = re.compile(r"^\.(?P<name>.+_seed\d+_[0-9a-f]{8})\..+\.(?P<kind>partial|old)$")
_DIVERGED = re.compile(r"^(?P<name>.+_seed\d+_[0-9a-f]{8})\.failed\.json$")
_FILES = ("config.json", "metrics.json", "model.safetensors", "predictions.npz")


@dataclass(frozen=True)
class Listed:
    """A run folder, or what is left of one.

    state: one of `STATES`. reason: why it is not done. bytes: of all its files. created: UTC, as
    `2026-11-22T10:00:00Z`. labels: as `activity,steps`. settings: of head and training by their
    names in a grid, the seed too. changed: those of them that are not the default's. scores:
    split -> score -> value, as in metrics.json. Of one that is not done, what could be read.
    """

    path: Path
    state: str
    reason: str = ""
    bytes: int = 0
    created: str = ""
    dataset: str = ""
    store: str = ""
    head: str = ""
    order: str = ""
    labels: str = ""
    device: str = ""
    precision: str = ""
    seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        return self.settings.get("seed")


def folder_bytes(folder: Path) -> int:
    """Of all files in it; links are not followed. A file that goes meanwhile counts nothing."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                else:
                    total += _size(entry)
    except OSError:  # gone, or not ours to read
        pass
    return total


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def list_runs(folders: Sequence[Path]) -> list[Listed]:
    """Every run under these folders, and what is left of runs, in the order of names; each once.

    A folder may be a run itself. Raises UsageError for one that is not there.
    """
    found: dict[Path, Listed] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"{folder} is no folder: name one that holds run folders (--out, by default runs); "
                "next: pcmci train-heads and pcmci ablate make them"
            )
        for listed in _runs_of(folder):
            found.setdefault(Path(os.path.realpath(listed.path)), listed)
    return list(found.values())


def _runs_of(folder: Path, depth: int = 0) -> Iterator[Listed]:
    if _looks_like_a_run(folder):
        yield look_at(folder)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            if half := _HALF.match(entry.name):
                yield _half(path, half["name"], half["kind"])
            elif not entry.name.startswith(".") and path.suffix != ".zarr" and depth < DEEPEST:
                yield from _runs_of(path, depth + 1)
        elif entry.is_symlink() and _looks_like_a_run(path):
            yield look_at(path)
        elif lost := _DIVERGED.match(entry.name):
            yield _lost(path, lost["name"])


def _looks_like_a_run(folder: Path) -> bool:
    if _NAME.match(folder.name) and folder.is_dir():
        return True
    return (folder / "config.json").is_file() and (folder / "predictions.npz").is_file()


def look_at(folder: Path) -> Listed:
    """A run folder, done or broken."""
    size = folder_bytes(folder)
    facts: dict[str, Any] = {}
    try:
        for name in _FILES:
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing")
        config = _read_json(folder / "config.json")
        if config["format"] > RUN_FORMAT:
            raise ValueError(f"run format {config['format']} is newer: upgrade pcmci")
        facts = _facts(config)
        metrics = _read_json(folder / "metrics.json")
        facts["scores"] = {split: dict(values) for split, values in metrics["scores"].items()}
        facts["seconds"] = sum(of["seconds"] for of in metrics["heads"].values())
        _check_whole(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Listed(folder, BROKEN, _said(error), size, **facts)
    return Listed(folder, DONE, "", size, **facts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is damaged: not an object")
    return content


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(str(error.filename)).name} cannot be read: {error.strerror}"
    if isinstance(error, ValueError):
        return str(error)
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    return f"config.json or metrics.json is not of a run: {what}"


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    head = config.get("head", DEFAULT)
    settings, changed = _settings(head, config)
    return {
        "created": str(config["created"]),
        "dataset": str(config["store"]["spec"]["dataset"]),
        "store": str(config["store"]["path"]),
        "head": str(head),
        "order": order_name(tuple(config["model"]["order"])) if head == DEFAULT else "",
        "labels": ",".join(config["train"]["labels"]),
        "device": str(config["machine"]["device"]),
        "precision": str(config["machine"]["precision"]),
        "settings": settings,
        "changed": changed,
    }


def _settings(head: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All, and those that are not the default's. A setting that came later is at its default in
    the record of a run before it."""
    model, train = config["model"], config["train"]
    known = head_settings(head) if head in HEADS else {}
    found, changed = {}, {}
    for name, (owner, entry) in {**known, **train_settings()}.items():
        if name in train_settings():
            record = train
        else:
            own = HEADS[head].config
            record = model if owner is own else model.get("transport", {})
        found[name] = record.get(entry.name, entry.default)
        if found[name] != entry.default and name != "seed":
            changed[name] = found[name]
    return found, changed


def _check_whole(folder: Path) -> None:
    """Raises ValueError for weights or predictions that were cut off; neither is read."""
    path = folder / "model.safetensors"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 8 + length <= size else b""
    try:
        tensors = json.loads(header)
        ends = [of["data_offsets"][1] for key, of in tensors.items() if key != "__metadata__"]
        whole = size == 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path.name} is damaged: its size is not what its header says")
    if not zipfile.is_zipfile(folder / "predictions.npz"):
        raise ValueError("predictions.npz is damaged: it has no end")


def _half(folder: Path, name: str, kind: str) -> Listed:
    if kind == "old":
        reason = f"set aside for another run of its name: move it to {name} to have it back"
    else:
        reason = {
            True: "being trained now",
            False: "no process of this machine is at it: it was killed, and the folder can be "
            "deleted, unless another machine is",
            None: "being trained, or its process was killed: this file system does not tell",
        }[is_held(folder)]
    return Listed(folder, UNFINISHED, reason, folder_bytes(folder))


def _lost(path: Path, name: str) -> Listed:
    try:
        reason = str(_read_json(path)["reason"])
        return Listed(path, DIVERGED, reason, path.stat().st_size)
    except (OSError, ValueError, KeyError) as error:
        return Listed(path, BROKEN, f"the record of a lost run: {_said(error)}", 0)
