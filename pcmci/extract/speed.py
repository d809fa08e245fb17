"""How fast a store was made, kept beside it: what a table of encoders shows as their cost."""

from __future__ import annotations

import json
import time
from typing import Any

from pcmci.cache.nearby import SPEED, beside, nearby
from pcmci.extract.intake import Summary
from pcmci.remote.url import Place


def record(out: Place, summary: Summary, how: str, together: int = 1) -> None:
    """Add one extraction to what is known of a store, if it encoded anything.

    how: a line that says what computed. together: stores that shared the time.
    """
    if not summary.videos or not summary.seconds:
        return
    runs = [*recorded(out), {
        "videos": summary.videos, "frames": summary.frames, "seconds": summary.seconds,
        "waiting": summary.waiting, "together": together, "workers": len(summary.workers),
        "how": how, "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }]  # fmt: skip
    path = nearby(out, SPEED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = beside(path, ".new")  # a kill must not leave half a history
        new.write_text(json.dumps(runs, indent=1) + "\n")
        new.replace(path)
    except OSError:
        return  # a number for a table: no reason to end an extraction that is done


def recorded(out: Place) -> list[dict[str, Any]]:
    """Every extraction that added to a store, the first one first; none where nothing is known."""
    try:
        found = json.loads(nearby(out, SPEED).read_text())
        return [dict(run) for run in found]
    except (OSError, ValueError, TypeError):
        return []


def videos_a_second(out: Place) -> float | None:
    """As measured over all extractions that encoded for this store alone; None where there were
    none."""
    runs = [run for run in recorded(out) if run.get("together") == 1]
    seconds = sum(float(run["seconds"]) for run in runs)
    return sum(int(run["videos"]) for run in runs) / seconds if seconds else None
