"""`pcmci report`: an ablation's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="A folder of an ablation's tables.")],
) -> None:
    """Make the page and the figures of an ablation again, from its rows alone.

    Example: pcmci report ablations/coin_1a2b3c4d
    """
    from pcmci.report.ablation import write_report

    print(write_report(folder))
