"""The command line: every command explains itself, bad input gets one line and exit code 2."""

import pytest
import typer
from typer.main import get_command

from pcmci.cli import app


def commands(group=None, path=()):
    """Every command of the program with the words that call it."""
    group = get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_says_what_it_does_with_an_example(words):
    text = ALL[words].help
    assert text
    assert f"pcmci {' '.join(words)}" in text.split("Example:")[1]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_is_explained(words):
    for parameter in ALL[words].params:
        if isinstance(parameter, typer.core.TyperOption):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_the_readme_lists_every_command(words, request):
    readme = (request.config.rootpath / "README.md").read_text()
    assert f"`pcmci {' '.join(words)}" in readme


def test_a_full_disk_is_one_line_and_exit_code_1(pcmci, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("pcmci.commands.train_heads.check_stages", full)
    answer = pcmci("train-heads")
    assert answer.code == 1
    assert answer.err == "pcmci: runs/x: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train-heads", "--order", "ich,,ici"], "an empty stage"),
        (["train-heads", "--order", "ich,ich"], "a stage is repeated"),
        (["train-heads", "--order", "ich,ocr"], "'ocr' is no stage"),
        (["train-heads", "--lr", "-1", "--features", "x.zarr"], "lr -1"),
        (["train-heads", "--features", "x.txt"], "x.txt"),
        (["train-heads", "--memory", "much"], "--memory 'much'"),
        (["train-heads"], "no store under features/"),
        (["train-heads", "--dataset", "coin"], "features/coin.zarr or .h5"),
        (["extract", "--dataset", "coin"], "data/coin/videos"),
        (["extract", "--dataset", "ucf"], "'ucf'"),
        (["extract", "--dataset", "coin", "--frames", "0"], "--frames 0"),
        (["evaluate", "nowhere"], "nowhere"),
        (["evaluate", "nowhere", "--tau", "0.9:0.1:0.1"], "--tau '0.9:0.1:0.1'"),
        (["predict", "nowhere", "film.mp4"], "nowhere"),
        (["store", "info", "nowhere.zarr"], "nowhere.zarr"),
        (["store", "info", "nowhere.txt"], "nowhere.txt"),
        (["store", "stats", "nowhere.zarr"], "nowhere.zarr"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(pcmci, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    answer = pcmci(*arguments)
    assert answer.code == 2, answer
    assert says in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
