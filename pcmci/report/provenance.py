"""Where the rows of an ablation came from: the foot of its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pcmci.report.page import Section, Table
from pcmci.report.rows import Rows

SHOWN_VIDEOS = 50
"""Lost videos that are listed; all are in sweep.json."""


def lost_section(rows: Rows) -> Section | None:
    """Videos without features; None where there are none."""
    lost = rows.facts["lost videos"]
    if not lost:
        return None
    columns = ["video", "split", "status", "reason"]
    columns += ["store"] * any("store" in video for video in lost)
    return Section(
        "Videos without features",
        [f"{len(lost)} videos have no features; where they are scored they count as wrong."],
        [
            Table(
                columns,
                [[v.get(name) for name in columns] for v in lost[:SHOWN_VIDEOS]],
                f"The first {SHOWN_VIDEOS}; all are in sweep.json."
                if len(lost) > SHOWN_VIDEOS
                else "",
            )
        ],
    )


def provenance(rows: Rows) -> dict[str, str]:
    """Name -> what stores, settings and programs the rows came from, in words."""
    facts = rows.facts

    def each(say: Callable[[Mapping[str, Any]], str]) -> str:
        """What is said of the store; of several once, or each by its name where they differ."""
        said = {name: say(one) for name, one in rows.stores.items()}
        if len(set(said.values())) == 1:
            return next(iter(said.values()))
        return "; ".join(f"{name}: {value}" for name, value in said.items() if value)

    grid = "; ".join(f"{name}: {', '.join(map(str, v))}" for name, v in facts["grid"].items())
    shown = {
        "data set": facts["dataset"],
        "videos": each(lambda one: ", ".join(f"{n} {what}" for what, n in one["counts"].items())),
        "with features": each(_coverage),
        "with replaced frames": each(_replaced),
        "frames a video": each(lambda one: str(one["frames"])),
        "VLM": each(lambda one: _encoder(one["vlm"])),
        "video encoder": each(lambda one: _encoder(one["video encoder"])),
        "libraries": each(lambda one: ", ".join(f"{n} {v}" for n, v in one["libraries"].items())),
        "store": each(
            lambda one: (
                f"{one['path']} (fingerprint {one['fingerprint'][:12]}, content "
                f"{one['content digest'][:12]})"
            )
        ),
        "seeds": ", ".join(map(str, facts["seeds"])),
        "grid": grid,
        "epochs": str(facts["epochs"]),
        "bootstrap": f"{facts['resamples']} draws" if facts["resamples"] else "none",
        "code": f"commit {facts['commit'] or 'unknown'}, torch {facts['torch']}, {facts['device']}",
        "made": facts["made"],
    }
    return {name: value for name, value in shown.items() if value}


def _coverage(store: Mapping[str, Any]) -> str:
    return ", ".join(f"{at} {have} of {total}" for at, (have, total) in store["coverage"].items())


def _replaced(store: Mapping[str, Any]) -> str:
    return ", ".join(f"{at} {n}" for at, n in store.get("replaced", {}).items() if n)


def _encoder(spec: Mapping[str, Any]) -> str:
    windows = f", dense windows of stride {spec['stride']}" if spec.get("stride") else ""
    return f"{spec['name']}, weights {spec['weights']} (sha256 {spec['sha256'][:12]}){windows}"
