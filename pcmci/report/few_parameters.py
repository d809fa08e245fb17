"""The paper's table of few tuned parameters (its Table 8), from the rows of an ablation.

There its encoders are frozen but for parts that it does not name. Here they are frozen whole, so
that every head is such a row, told by what it has in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcmci.report.page import Cell, Section, Table
from pcmci.report.paper import MODEL_PARAMETERS, TUNED_SHARES, reported_tuned
from pcmci.report.rows import WHOLE, Row
from pcmci.report.table import percent, spread

SCORES = {"activity": "Acc", "steps": "mAP"}
"""The score of a label set that is shown."""

WITHOUT_VISUAL = "text,classifier"
CONTROL = 11.4e6
"""Numbers of a head without stages that is as large as the paper's smaller share: 5.41 % of its
model."""


def few_parameters(
    results: Sequence[Row], summary: Sequence[Row], facts: Mapping[str, Any], split: str
) -> Section | None:
    """A row for each variant of the paper's head that has the content of one of the paper's, is
    tuned in part, or has no stage. None where the paper has no such table of the data set and
    nothing was tuned in part.

    results, summary, facts: of an ablation, as its files have them. split: the scored one.
    """
    runs = {row["variant"]: row for row in results if row["status"] == "done"}
    shown = {name: row for name, row in runs.items() if _belongs(row)}
    tuned = any(_tune(row) != "all" for row in shown.values())
    if not shown or not (tuned or reported_tuned(facts["dataset"], WHOLE)):
        return None
    labels = [name for name in SCORES if any(f"{name}/trained parameters" in r for r in results)]
    scores = {(r["variant"], r["score"]): r for r in summary if r["split"] == split}
    ours = {r["variant"] for r in summary if r.get("ours")}
    head = ["row", "trained"]
    for name in labels:
        head += [f"{name}: numbers", "share (%)", f"{SCORES[name]} (%)"]
    with_paper = any(reported_tuned(facts["dataset"], order) for order in TUNED_SHARES)
    head += ["the paper's row", "its share (%)", "its Acc (%)"] * with_paper
    body: list[list[Cell]] = []
    for variant, row in shown.items():
        cells: list[Cell] = [variant, _content(row)]
        for name in labels:
            found = scores.get((variant, SCORES[name]))
            cells += [
                _numbers(row.get(f"{name}/trained parameters")),
                percent(_share(row, name, facts)),
                spread(found) if found else None,
            ]
        if with_paper:
            order = _paper_row(row, variant in ours)
            title, share = TUNED_SHARES.get(order, (None, None))
            cells += [title, percent(share), percent(reported_tuned(facts["dataset"], order))]
        body.append(cells)
    return Section(
        "With few parameters",
        [*_words(facts, with_paper), *_control(shown, labels, facts)],
        [Table(head, body, f"On {split}; a share is of the encoders and the head together.")],
    )


def _belongs(row: Row) -> bool:
    if row.get("head", "pcmci") != "pcmci":
        return False
    return row["order"] in ("none", *TUNED_SHARES) or _tune(row) != "all"


def _tune(row: Row) -> str:
    """Rows that were made before it could be chosen trained everything."""
    return str(row.get("tune") or "all")


def _paper_row(row: Row, is_ours: bool) -> str:
    """The order that stands for the row of the paper with the same content; "" for none, and for a
    row with settings of ours, which its name has or `is_ours` says."""
    if is_ours or any(not setting.startswith("tune=") for setting in row["variant"].split(" ")[1:]):
        return ""
    if row["order"] == WHOLE and _tune(row) == WITHOUT_VISUAL:
        return "ich,ici"
    return row["order"] if _tune(row) == "all" else ""


def _content(row: Row) -> str:
    """`text, visual, classifier`: the modules that are trained."""
    return "all of the head" if _tune(row) == "all" else _tune(row).replace(",", ", ")


def _numbers(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:.2f} M"


def _share(row: Row, labels: str, facts: Mapping[str, Any]) -> float | None:
    """Of all numbers. Rows that were made before it was kept have those of a whole head alone."""
    if (kept := row.get(f"{labels}/trained share")) is not None:
        return float(kept)
    trained = row.get(f"{labels}/trained parameters")
    if trained is None or _tune(row) != "all" or len(facts.get("stores", ())) > 1:
        return None
    return float(trained / (trained + _encoders(facts)))


def _encoders(facts: Mapping[str, Any]) -> int:
    return int(facts["vlm"]["parameters"] + facts["video encoder"]["parameters"])


def _words(facts: Mapping[str, Any], with_paper: bool) -> list[str]:
    stores = facts.get("stores") or {"": facts}
    each = ", ".join(
        f"{_encoders(one) / 1e6:.1f} M numbers" + (f" ({name})" if name else "")
        for name, one in stores.items()
    )
    words = [f"Both encoders are frozen; they have {each}, the VLM with its text encoder."]
    if with_paper:
        sizes = ", ".join(
            f"{percent(share)} % would be {share * MODEL_PARAMETERS / 1e6:.1f} M"
            for _, share in TUNED_SHARES.values()
        )
        words.append(
            "The paper's rows stand beside ours by what is in them. Its shares cannot be "
            f"reconstructed: of the {MODEL_PARAMETERS / 1e6:.0f} M numbers that notes on it give, "
            f"{sizes}, more than the modules of its equations have."
        )
    return words


def _control(
    shown: Mapping[str, Row], labels: Sequence[str], facts: Mapping[str, Any]
) -> list[str]:
    """Which width makes the head without stages as large as the paper's smaller share."""
    plain = [r for r in shown.values() if r["order"] == "none" and _tune(r) == "all"]
    found = []
    for name in labels:
        sizes = {row[f"{name}/trained parameters"]: row["feedforward"] for row in plain}
        if sizes and max(sizes) < 0.98 * CONTROL:
            more = round((CONTROL - max(sizes)) / _a_unit(facts))
            found.append(f"--feedforward {sizes[max(sizes)] + more} for {name}")
    if not found:
        return []
    return [
        f"The control, a head without stages of {CONTROL / 1e6:.1f} M numbers (5.41 % of the "
        f"paper's model): --order none {', '.join(found)}."
    ]


def _a_unit(facts: Mapping[str, Any]) -> int:
    """Numbers of one unit of the decoder's feed-forward layer: in, out and bias."""
    return 2 * int(facts["vlm"]["width"]) + 1
