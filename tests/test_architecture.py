"""Who may import whom, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "pcmci"
EVERYONE_MAY = {"errors", "device", "plain", "stopping"}
MAY = {
    "errors": set(),
    "device": {"errors"},
    "plain": set(),
    "stopping": {"errors"},
    "flags": set(),
    "remote": {"remote"},
    "cache": {"cache", "remote"},
    "kitchen": {"kitchen"},
    "cluster": {"cluster"},
    "extract": {"extract", "cache", "cluster", "remote"},
    "heads": {"heads", "cache", "cluster"},
    "report": {"report"},
}


def rooms_imported(path: Path) -> set[str]:
    """The rooms of the house that a file imports, wherever in the file it does."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("pcmci.")}
    return rooms


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_its_neighbours(room):
    home = ROOT / room
    files = sorted(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
    assert files
    for file in files:
        assert rooms_imported(file) <= MAY[room] | EVERYONE_MAY, file


def test_nothing_imports_the_command_line():
    for file in ROOT.rglob("*.py"):
        if file.name != "__main__.py":
            assert "cli" not in rooms_imported(file), file


@pytest.mark.parametrize(
    "module", ["pcmci", "pcmci.cli", "pcmci.cache.store", "pcmci.extract.datasets"]
)
def test_importing_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_drawers_without_a_name():
    assert not [f for f in ROOT.rglob("*.py") if f.stem in ("utils", "util", "common", "base")]
