"""The known encoders as a table, and what must be said of a store's own under every score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

DATA_SETS = {"breakfast": "Breakfast", "charades": "Charades", "coin": "COIN"}
"""Their names in prose; others are written as they are."""

ENCODERS = {"vlm": "VLM", "video": "video encoder"}


def encoders_table(cards: Iterable[Mapping[str, Any]], kind: str) -> Table:
    """A row a model. cards: `pcmci.extract.encoders.cards` as JSON. kind: `vlm` or `video`."""
    table = Table(title=f"--{ENCODERS[kind].lower().replace(' ', '-')}", title_justify="left")
    for name in ("name", "weights", "licence"):
        table.add_column(name, overflow="fold")
    for name in ("million\nparameters", "GFLOP\na frame", "frames\na clip"):
        table.add_column(name, justify="right")
    table.add_column("weights trained on", overflow="fold")
    for card in cards:
        if card["kind"] != kind:
            continue
        seen = "".join(f"; {data_set(name)}'s labels" for name in card["labels_seen"])
        table.add_row(
            card["name"], card["weights"] + ("" if card["fetched"] else " (by hand)"),
            card["licence"], f"{card['parameters'] / 1e6:.1f}", f"{card['gflops']:.1f}",
            f"{card['clip_frames']}" + (f" x {card['stride']}" if card["stride"] else ""),
            card["trained_on"] + seen,
        )  # fmt: skip
    return table


def spec_notes(spec: Mapping[str, Any]) -> list[str]:
    """`video encoder trained on COIN's labels`: one for each encoder of a store whose weights saw a
    benchmark's labels, and one where a confounder was planted; none for others. spec: of the
    store, as JSON."""
    notes = [note(kind, name) for kind in ENCODERS for name in spec[kind].get("labels_seen", ())]
    return [*notes, *([planted_note(spec["planted"])] if spec.get("planted") else [])]


def planted_note(planted: Mapping[str, Any]) -> str:
    """What must be said of features in which a confounder was planted."""
    return (
        f"PLANTED: a known confounder was added to {planted['array']} "
        f"({planted['frames']} frames a video, strength {planted['strength']:g} in training, "
        f"{planted['test_strength']:g} in the test); no score of the data set itself"
    )


def row_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same of an ablation's rows, whose column `labels seen` has `video:coin`; rows of before
    there was one have seen nothing."""
    pairs = [pair for row in rows for pair in (row.get("labels seen") or "").split(",") if pair]
    return [note(*pair.split(":")) for pair in dict.fromkeys(pairs)]


def note(kind: str, name: str) -> str:
    """kind: `vlm` or `video`. name: a data set's."""
    return f"{ENCODERS[kind]} trained on {data_set(name)}'s labels"


def data_set(name: str) -> str:
    """`coin` as `COIN`."""
    return DATA_SETS.get(name, name)
