"""Transport plans beside a store: how one is named, and which of them no run can use any more.

A plan is of a store's content and of some settings. As soon as the content is another (videos that
had failed are there, an encoder's features were made anew), no run asks for it again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcmci.cache.disk import delete
from pcmci.cache.nearby import nearby
from pcmci.cache.schema import Status
from pcmci.cache.store import Store
from pcmci.errors import PcmciError
from pcmci.heads.config import TransportConfig
from pcmci.heads.training.folders import folder_bytes
from pcmci.heads.training.held import is_held

PLAN_FORMAT = 2
PARTIAL = ".partial"
"""Behind the name of a folder in which a plan is being solved."""
QUIET_SECONDS = 3600
"""After so long without a word written, a plan that is half solved is nobody's."""
DECISIVE = ("temperature", "lam", "refine", "tolerance", "max_iterations")
"""The settings that a frozen S~ depends on; `source` and `gradient` are for learned ones, `gamma`
is for `contrast`."""


@dataclass(frozen=True)
class Plan:
    """What lies under one name in a folder of plans.

    paths: its files, or its folder. bytes: of them. about: labels and settings, where its record
    says them. why: the reason why no run can use it; "" where one can. note: why it is kept though
    nothing here uses it.
    """

    paths: tuple[Path, ...]
    bytes: int
    about: str
    why: str = ""
    note: str = ""


def plan_identity(content_digest: str, labels: str, config: TransportConfig) -> dict[str, Any]:
    """What a plan is of."""
    return {
        "format": PLAN_FORMAT,
        "store": content_digest,
        "labels": labels,
        "transport": {name: getattr(config, name) for name in _decisive(config)},
    }


def plan_key(identity: Mapping[str, Any]) -> str:
    """The name of its files."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decisive(config: TransportConfig) -> tuple[str, ...]:
    return (*DECISIVE, "gamma") if config.refine == "contrast" else DECISIVE


def list_plans(
    store: Store, advance: Callable[[int, int], None] = lambda done, of: None
) -> list[Plan]:
    """Of a store's own folder, `<store>.plans/`, by name. advance: told (done, of how many)."""
    folder = nearby(store.path, ".plans")
    if not folder.is_dir():
        return []
    # Before the names: what is finished in between has its record then.
    busy = any(not _is_left(path) for path in folder.glob(f"*{PARTIAL}"))
    names = sorted({path.stem for path in folder.iterdir() if path.suffix in (".npy", ".json")})
    partial = sorted(folder.glob(f"*{PARTIAL}"))
    found = []
    for done, name in enumerate(names, start=1):
        if plan := _finished(store, folder, name, busy):
            found.append(plan)
        advance(done, len(names))
    return [*found, *map(_unfinished, partial)]


def _finished(store: Store, folder: Path, name: str, busy: bool) -> Plan | None:
    array, record = folder / f"{name}.npy", folder / f"{name}.json"
    paths = tuple(path for path in (record, array) if path.exists())
    if not paths:
        return None
    size = sum(path.stat().st_size for path in paths)
    if not record.exists():
        if busy:
            return Plan(paths, size, "", note="of a training that may be at work")
        return Plan(paths, size, "", "it has no record: its process was killed")
    try:
        identity = json.loads(record.read_text())
        sha256 = identity.pop("sha256")
        identity.pop("marginal_error")
        about = f"{identity['labels']}, " + " ".join(
            f"{key}={value}" for key, value in identity["transport"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Plan(paths, size, "", "its record is damaged")
    if identity["format"] > PLAN_FORMAT:
        return Plan(paths, size, about, note="of a newer pcmci")
    if identity["format"] < PLAN_FORMAT:
        return Plan(paths, size, about, "of an older pcmci, which solved them otherwise")
    if identity["store"] != store.content_digest:
        if pending := store.counts[Status.PENDING]:
            # A repair of what was hurt gives the same content again.
            return Plan(
                paths, size, about,
                note=f"of another content; {pending} videos are pending, with which it may be this",
            )  # fmt: skip
        return Plan(paths, size, about, "of another content: the store has changed since")
    if identity["labels"] not in store.spec.label_sets or plan_key(identity) != name:
        return Plan(paths, size, about, "its name is not what its record says")
    if not array.exists():
        return Plan(paths, size, about, "its array is missing")
    if file_sha256(array) != sha256:
        return Plan(paths, size, about, "damaged: it is not what was written")
    return Plan(paths, size, about)


def _unfinished(folder: Path) -> Plan:
    size = folder_bytes(folder)
    if _is_left(folder):
        return Plan((folder,), size, "", "half solved: its process was killed")
    said = "being solved now" if is_held(folder) else "half solved, and somebody may be at it"
    return Plan((folder,), size, "", note=said)


def _is_left(folder: Path) -> bool:
    """Whether nobody is at work in it: no process of this machine has it, and none of another,
    whose lock may not be seen here, wrote lately."""
    try:
        latest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return False
    return is_held(folder) is False and time.time() - latest > QUIET_SECONDS


def remove(plans: Sequence[Plan]) -> Iterator[Plan]:
    """Delete those that no run can use, and give each that is gone. What became usable since it
    was listed (another process solved it) stays. Raises PcmciError for what cannot be deleted.

    A training that has such a plan open (its store changed since it began) goes on: on a local
    disk a file that is open is there until it is closed.
    """
    for plan in plans:
        if not plan.why or not _as_listed(plan):
            continue
        for path in plan.paths:  # the record first: without it an array is not believed
            try:
                delete(path)
            except OSError as error:
                raise PcmciError(f"{path} cannot be deleted: {error.strerror}") from error
        yield plan


def _as_listed(plan: Plan) -> bool:
    """Whether nobody wrote to it since."""
    if plan.paths[0].suffix == PARTIAL:
        return _is_left(plan.paths[0])
    array = plan.paths[-1]
    if len(plan.paths) == 1 and array.suffix == ".npy":
        return not array.with_suffix(".json").exists()
    return sum(path.stat().st_size for path in plan.paths if path.exists()) == plan.bytes
