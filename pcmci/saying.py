"""A line for the user, above whatever bar is there."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pcmci.plain import plain


def sayer(progress: bool) -> Callable[[str], None]:
    """What says a line; nothing, where progress is not wanted."""

    def say(line: str) -> None:
        if progress:
            from tqdm import tqdm

            tqdm.write(plain(line), file=sys.stderr)

    return say
