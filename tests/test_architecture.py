"""Who may import whom, and what importing costs.

    python tests/test_architecture.py --print

prints the rooms, lowest first, each with those that it imports.
"""

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "pcmci"
EVERYONE_MAY = {"errors", "device", "plain", "saying", "stopping"}
MAY = {
    "errors": set(),
    "device": {"errors"},
    "plain": set(),
    "saying": set(),
    "stopping": {"errors"},
    "flags": set(),
    "remote": set(),
    "cache/planted": set(),
    "cache/schema": {"cache/planted", "cache/replaced", "cache/windows"},
    "cache/disk": {"remote"},
    "cache/nearby": {"remote"},
    "cache/changes": {"cache/schema"},
    "cache/replaced": set(),
    "cache/windows": set(),
    "cache/formats": {"remote", "cache/disk", "cache/schema"},
    "cache/contents": {"cache/formats", "cache/schema"},
    "cache/lazy": {"remote", "cache/formats"},
    "cache/writing": {
        "remote", "cache/contents", "cache/disk", "cache/formats", "cache/nearby",
        "cache/replaced", "cache/schema",
    },
    "cache/store": {
        "remote", "cache/changes", "cache/contents", "cache/disk", "cache/formats", "cache/lazy",
        "cache/nearby", "cache/replaced", "cache/schema", "cache/writing",
    },
    "cache/upkeep": {
        "remote", "cache/contents", "cache/disk", "cache/formats", "cache/nearby", "cache/planted",
        "cache/replaced", "cache/schema", "cache/store", "cache/writing",
    },
    "cluster": set(),
    "kitchen": set(),
    "extract/config": {"cache/replaced", "cache/windows"},
    "extract/datasets": {"cache/schema", "remote"},
    "extract/imported": {"cache", "extract/datasets", "extract/table", "remote"},
    "extract/table": {"cache/schema", "extract/datasets"},
    "extract/encoders": {"cache/schema", "cache/windows", "extract/config"},
    "extract/video": {"cache/replaced", "cache/schema", "extract/encoders", "remote"},
    "extract": {"cache", "cluster", "extract", "remote"},
    "heads/settings": set(),
    "heads/config": {"heads/settings"},
    "heads/head": set(),
    "heads/method": {"heads/config", "heads/head"},
    "heads/comparators": {"heads/config", "heads/head", "heads/method", "heads/settings"},
    "heads/catalogue": {"heads/comparators", "heads/config", "heads/head", "heads/settings"},
    "heads/scoring": set(),
    "heads/training": {
        "cache", "heads/catalogue", "heads/config", "heads/head", "heads/method", "heads/scoring",
        "heads/settings",
    },
    "heads/explaining": {
        "cache", "heads/comparators", "heads/config", "heads/head", "heads/method",
        "heads/scoring", "heads/training",
    },
    "heads/ablation": {
        "cache", "cluster", "heads/catalogue", "heads/config", "heads/head", "heads/scoring",
        "heads/training",
    },
    "report": set(),
    "demo": {"cache", "extract", "heads", "kitchen", "report"},
    "doctor": {"cache/schema", "extract/video"},
    "commands": {
        "cache", "cluster", "demo", "doctor", "extract", "flags", "heads", "kitchen", "remote",
        "report",
    },
    "cli": {"commands"},
    "__main__": {"cli"},
    "__init__": {"cache", "extract", "heads"},
}  # fmt: skip
"""A room is a folder, or a file that lies beside folders; where a folder is named, all in it is
meant."""


def modules(house: Path = HOUSE) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(house.rglob("*.py")):
        parts = path.relative_to(house.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    found = {name for name in names if name in known}
    # `from a.b import c`, where c is a module, needs a.b only on the way
    return {n for n in found if not any(other.startswith(f"{n}.") for other in found)}


def room_of(module: str) -> str:
    """`pcmci.cache.writing.lock` -> `cache/writing`, `pcmci.cache.store` -> `cache/store`."""
    parts = module.split(".")[1:] or ["__init__"]
    for length in range(len(parts), 0, -1):
        if (room := "/".join(parts[:length])) in MAY:
            return room
    return "/".join(parts)


@functools.cache
def arrows() -> dict[str, set[str]]:
    """module -> the modules that it imports."""
    known = modules()
    return {name: imported(path, known) - {name} for name, path in known.items()}


@functools.cache
def rooms() -> dict[str, set[str]]:
    """room -> the other rooms that it imports."""
    found: dict[str, set[str]] = {}
    for module, others in arrows().items():
        own = found.setdefault(room_of(module), set())
        own |= {room_of(other) for other in others} - {room_of(module)}
    return found


def below(room: str, allowed: set[str]) -> bool:
    return any(room == one or room.startswith(f"{one}/") for one in allowed)


@pytest.mark.parametrize("room", sorted({room_of(module) for module in modules()}))
def test_a_room_imports_only_its_neighbours(room):
    assert room in MAY or room in {"cache", "heads"}, "a new room: who may it import?"
    allowed = MAY.get(room, set()) | EVERYONE_MAY
    strangers = {other for other in rooms()[room] if not below(other, allowed)}
    assert not strangers


def test_no_two_modules_import_each_other():
    try:
        list(TopologicalSorter(arrows()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_two_rooms_import_each_other():
    try:
        list(TopologicalSorter(rooms()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_room_that_may_be_imported_is_there():
    there = {room_of(module) for module in modules()}
    assert set(MAY) <= there


def test_every_folder_says_in_one_sentence_what_its_files_are():
    for path in HOUSE.rglob("__init__.py"):
        if path.parent != HOUSE:
            text = ast.get_docstring(ast.parse(path.read_text()))
            assert text, path


def test_nothing_imports_the_command_line():
    importing = {module for module, others in arrows().items() if "pcmci.cli" in others}
    assert importing == {"pcmci.__main__"}


def test_scoring_knows_no_torch():
    for path in (HOUSE / "heads" / "scoring").glob("*.py"):
        assert "import torch" not in path.read_text(), path


@pytest.mark.parametrize(
    "module", ["pcmci", "pcmci.cli", "pcmci.cache.store", "pcmci.extract.datasets"]
)
def test_importing_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_waits_for_no_numpy():
    code = "import sys, pcmci.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_drawers_without_a_name():
    assert not [f for f in HOUSE.rglob("*.py") if f.stem in ("utils", "util", "common", "base")]


if __name__ == "__main__":
    if sys.argv[1:] != ["--print"]:
        sys.exit(__doc__)
    found = rooms()
    for place in TopologicalSorter(found).static_order():
        print(f"{place:18} <- {', '.join(sorted(found.get(place, ()))) or '-'}")
