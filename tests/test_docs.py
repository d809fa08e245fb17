"""What the pages and notebooks show: every command is one of the program's, and runs.

Every block of a page with a line `pcmci …` is run, in the order of the page, on a tiny kitchen
world; but for those with `<!-- needs: … -->` in the line before, whose words alone are checked.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import typer

from pcmci import cli, kitchen
from pcmci.heads.catalogue import HEADS

HOME = Path(__file__).parents[1]
PAGES = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted((HOME / "docs").rglob("*.md"))]
NOTEBOOKS = ["from_videos_to_a_table", "your_own_head"]  # the second takes the first one's store
NEEDS = {
    "benchmark": "the videos and annotations of Breakfast, COIN or Charades, and their encoders",
    "videos of yours": "films and labels that we do not know",
    "cluster": "a scheduler, or several GPUs",
    "bucket": "a server, credentials",
    "minutes": "nothing, but a world of full size",
}
SMALLER = {
    "train-heads": ["--epochs", "1"],
    "ablate": ["--epochs", "1", "--seeds", "1", "--workers", "1", "--resamples", "10"],
}
"""Behind the words of a page, where the last one counts: what makes it a matter of seconds."""


@dataclass(frozen=True)
class Block:
    """Of a page: where it begins, the commands in it, and what they need ("" for nothing)."""

    page: str
    line: int
    commands: tuple[tuple[str, ...], ...]
    needs: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    fence = re.compile(
        r"(?:^<!-- needs: ([^\n]*) -->\n)?^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
    )
    for found in fence.finditer(text):
        needs, language, content = found.groups()
        if language in ("python", "bibtex", "text", "json"):
            continue
        joined = content.replace("\\\n", " ")
        lines = re.findall(r"^(?:\$ )?(pcmci .+)$", joined, re.MULTILINE)
        lines = [one for line in lines for one in line.split(" && ")]
        commands = tuple(tuple(shlex.split(line, comments=True)) for line in lines)
        if commands:
            yield Block(page, text[: found.start()].count("\n") + 1, commands, needs or "")


BLOCKS = [
    block
    for path in PAGES
    for block in blocks_of(str(path.relative_to(HOME)), path.read_text(encoding="utf-8"))
]


@cache
def program():
    """All commands; made once, for it takes its time."""
    return typer.main.get_command(cli.app)


def check_words(words: tuple[str, ...]) -> None:
    """Raises where the program has no such command, option or number of arguments."""
    command = program()
    context = typer.Context(command)
    _, *rest = words
    while hasattr(command, "commands"):
        name, *rest = rest
        command = command.get_command(context, name)
        assert command is not None, words
    command.make_context(" ".join(words), [*rest])


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_program_has_the_commands_and_options_that_are_shown(block):
    for words in block.commands:
        check_words(words)
    assert not block.needs or block.needs in NEEDS


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pcmci trian", "trian"),
        ("pcmci runs --were order=ich", "No such option"),
        ("pcmci store info", "Missing"),
        ("pcmci ablate --workers x", "valid int"),
    ],
)
def test_a_slip_of_the_pen_would_be_noticed(line, says):
    (block,) = blocks_of("page", f"text\n```sh\n{line}\n```\n")
    with pytest.raises(Exception, match=says):
        check_words(block.commands[0])


def test_commands_between_back_quotes_are_the_programs():
    commands = program().commands
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"`pcmci ([a-z][a-z-]*)", text):
            assert name in commands, f"{path}: pcmci {name}"
        for name in re.findall(r"`pcmci store ([a-z]+)", text):
            assert name in commands["store"].commands, f"{path}: pcmci store {name}"


def test_what_cannot_run_here_is_the_smaller_part_of_the_task_pages():
    for page in ("extract", "train", "index", "ablation", "features"):
        mine = [block for block in BLOCKS if block.page == f"docs/{page}.md"]
        assert any(not block.needs for block in mine), page


# --- really run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_world():
    """Worlds are a few videos, whatever is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        draw = partial(kitchen.write_world, val=2, test=3)

        def few(out, videos=0, seed=0, knobs=None, **_):
            return draw(out, 12, seed, knobs, workers=1, progress=False)

        patch.setattr(kitchen, "write_world", few)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_world):
    """What the first notebook found; the folder in which it and readers of all pages are at work
    is the current one."""
    folder = tmp_path_factory.mktemp("reader")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield run_notebook(NOTEBOOKS[0])
    finally:
        os.chdir(before)


def filled_in(words: tuple[str, ...]) -> list[str]:
    """As a shell does it where a reader has seen this page alone: of several files the last one
    made. And smaller."""
    _, name, *rest = words
    spread = [max(glob.glob(word), key=os.path.getmtime, default=word) for word in rest]
    return [name, *spread, *SMALLER.get(name, [])]


RUN = [
    page
    for page in dict.fromkeys(block.page for block in BLOCKS)
    if any(block.page == page and not block.needs for block in BLOCKS)
]


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(page, home, pcmci):
    for block in BLOCKS:
        if block.page != page or block.needs:
            continue
        for words in block.commands:
            answer = pcmci(*filled_in(words))
            assert answer.code == 0, f"{block}: {' '.join(words)}: {answer.err}"


# --- notebooks ------------------------------------------------------------------------------------


def cells(name: str) -> list[dict]:
    return json.loads((HOME / "docs" / "notebooks" / f"{name}.ipynb").read_text())["cells"]


def run_notebook(name: str) -> dict:
    """All its cells in this process, as a kernel does it; its parameters are made small."""
    module = types.ModuleType(f"notebook_{name}")
    sys.modules[module.__name__] = module
    try:
        for place, cell in enumerate(cells(name)):
            if cell["cell_type"] != "code":
                continue
            code = compile("".join(cell["source"]), f"{name}[{place}]", "exec")
            exec(code, module.__dict__)
            if "parameters" in cell["metadata"].get("tags", ()):
                exec("VIDEOS, EPOCHS, WORKERS = 12, 1, 1", module.__dict__)
    finally:
        del sys.modules[module.__name__]
        HEADS.pop("ask", None)
    return module.__dict__


def test_from_videos_to_a_table(home):
    assert {row["variant"] for row in home["table"].summary} == {"none", "ich", "ich,ici,ivc"}
    assert home["table"].trained == home["table"].done - 1  # the run before it is taken over


def test_your_own_head(home):
    found = run_notebook(NOTEBOOKS[1])
    assert {row["variant"] for row in found["table"].summary} == {"none", "linear", "ask"}
    assert found["run"].described == "head ask"  # also where nobody knows it any more
    (of,) = (cell for cell in cells(NOTEBOOKS[1]) if "class Ask(" in "".join(cell["source"]))
    assert len(list(filter(str.strip, of["source"]))) <= 30


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_what_it_showed(name):
    for cell in cells(name):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", ["ablate", "extract", "load_dataset", "open_store", "train_heads"])
def test_what_the_package_offers_can_be_called_whatever_was_imported_before(name):
    import pcmci.extract.datasets  # the folder of that name

    assert callable(getattr(pcmci, name))
    assert callable(getattr(pcmci, name))


# --- what stands around the program ---------------------------------------------------------------


def test_the_version_comes_from_one_place(pcmci):
    import tomllib

    import pcmci as package

    version = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["version"]
    assert package.__version__ == version
    answer = pcmci("--version")
    assert (answer.code, answer.out) == (0, f"pcmci {version}\n")


def test_the_citation_is_of_this_version_and_changes_are_told():
    yaml = pytest.importorskip("yaml")
    import pcmci as package

    citation = yaml.safe_load((HOME / "CITATION.cff").read_text())
    assert citation["version"] == package.__version__
    assert citation["license"] == "MIT"
    assert f"## [{package.__version__}]" in (HOME / "CHANGELOG.md").read_text()


def test_all_that_lies_in_the_package_goes_into_the_wheel():
    import tomllib

    pyproject = tomllib.loads((HOME / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["pcmci"]
    taken = {path for pattern in patterns for path in (HOME / "pcmci").glob(pattern)}
    there = {
        path
        for path in (HOME / "pcmci").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert there == taken
    assert HOME / "pcmci" / "py.typed" in there
