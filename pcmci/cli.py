"""The command line: gathers the commands, translates errors. Nothing imports it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from pcmci.commands.ablate import ablate
from pcmci.commands.demo import demo
from pcmci.commands.doctor import doctor
from pcmci.commands.encoders import encoders
from pcmci.commands.evaluate import evaluate
from pcmci.commands.explain import explain
from pcmci.commands.extract import extract
from pcmci.commands.heads import heads
from pcmci.commands.import_features import import_
from pcmci.commands.kitchen import kitchen
from pcmci.commands.plant import plant
from pcmci.commands.predict import predict
from pcmci.commands.report import report
from pcmci.commands.runs import runs
from pcmci.commands.store import store_app
from pcmci.commands.train_heads import train_heads
from pcmci.errors import PcmciError
from pcmci.plain import plain, print_anything

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Extract frozen features of long videos once, then train causal-intervention heads in "
    "minutes.\n\nThe whole way on a small world, without a download: [bold]pcmci demo[/bold]",
)
for command in (
    extract,
    train_heads,
    ablate,
    report,
    runs,
    evaluate,
    predict,
    explain,
    heads,
    encoders,
    kitchen,
    demo,
    doctor,
    plant,
):
    app.command()(command)
app.command("import")(import_)
app.add_typer(store_app, name="store")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"pcmci {version('pcmci')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What holds for all commands; the text of their help is that of the app."""


def main() -> NoReturn:
    """Run the command line; leaves with 0, 1 for work that failed, 2 for bad input, or 128 + N
    after signal N."""
    _silence_libraries()
    print_anything()
    try:
        app(standalone_mode=True)
    except PcmciError as error:
        print(f"pcmci: {plain(error)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # a full disk, a vanished mount: the machine's fault, not a bug's
        where = f"{error.filename}: " if error.filename else ""
        print(f"pcmci: {plain(where)}{plain(error.strerror or error)}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _silence_libraries() -> None:
    """What a user reads is ours. `-W` and PYTHONWARNINGS bring warnings back; whoever set filters
    before (tests, which make errors of them) keeps them."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore", append=True)
        os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that are started later
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    root = logging.getLogger()
    if not root.handlers:  # or Python would print what no handler takes
        root.addHandler(logging.NullHandler())
