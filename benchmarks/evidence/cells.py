"""Which worlds are asked, and which heads in each: the grid of the study."""

from __future__ import annotations

from dataclasses import dataclass

from evidence.heads import BOTH, HEADS, NONE, UNIFORM
from evidence.world import Knobs
from pcmci.heads.config import ORDERS, order_name

SHARES = (1 / 16, 1 / 4, 1 / 2, 1.0)
STRENGTHS = (0.0, 0.5, 0.9)
ALL_ORDERS = tuple(order_name(order) for order in ORDERS)

OF_H = (BOTH, "ich", UNIFORM, "ich, contrast", "both, centred", "both, swap")
OF_C = (NONE, "ivc", "ivc, cross, K = 0", "ivc, cross", "none, centred", "none, swap")
OF_I = (NONE, "ici", BOTH, "ich,ici")
UNTIED = {"h": (BOTH, "ich", "both, swap"), "c": (NONE, "ivc", "none, swap"), "i": (NONE, "ici")}
"""Where nothing ties confounder and label, and there is nothing to learn of it."""
SIMILARITY = "ich, similarity at half the temperature"
EXPERTS = ("experts", "experts, swap")


@dataclass(frozen=True)
class Cell:
    """A world and a set of labels to learn in it. heads: the rows that are trained there."""

    knobs: Knobs
    heads: tuple[str, ...]
    labels: str = "activity"
    note: str = ""

    @property
    def name(self) -> str:
        """As in `h pre=1 eta=0.9 rho=1/4`, with what is not as everywhere behind it."""
        k = self.knobs
        share = f"{k.share:g}" if k.share in (0, 1) else f"1/{1 / k.share:g}"
        name = f"{k.confounder} pre={k.eta_pre:g} eta={k.eta_train:g} rho={share}"
        return f"{name} {self.note}" if self.note else name


def _grid() -> list[Cell]:
    found = []
    for eta in (0.9, 0.5, 0.0):
        for share in (1 / 4, 1.0, 1 / 16, 1 / 2):
            telling = share in (1 / 4, 1.0)
            more = EXPERTS if eta == 0.9 and telling else ()
            if eta or telling:
                for pre in (0.0, 1.0):
                    knobs = Knobs("h", share=share, eta_train=eta, eta_pre=pre)
                    with_similarity = (SIMILARITY,) if more else ()
                    heads = (*OF_H, *with_similarity, *more) if eta else UNTIED["h"]
                    found.append(Cell(knobs, heads))
                knobs = Knobs("c", share=share, eta_train=eta, eta_pre=0.0)
                heads = (*OF_C, *((BOTH, *more) if more else ())) if eta else UNTIED["c"]
                found.append(Cell(knobs, heads))
            if telling:
                knobs = Knobs("i", share=share, eta_train=eta, eta_pre=1.0)
                found.append(Cell(knobs, (*OF_I, *more) if eta else UNTIED["i"]))
    return found


CENTRE = Knobs("h", share=1 / 4, eta_train=0.9, eta_pre=0.0)
"""The cell in which ich is expected to help most."""

_FEW = (NONE, BOTH, "ich", UNIFORM)

CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in [
        *_grid(),
        Cell(CENTRE, (BOTH, *ALL_ORDERS), note="all orders"),
        Cell(Knobs("h", 1 / 4, True, 0.9, 0.0), _FEW, note="in one run"),
        Cell(
            Knobs("h", 1 / 4, False, 0.9, 0.0, train=100), (*_FEW, "none, wide"), note="100 videos"
        ),
        Cell(Knobs("h", 1 / 4, False, 0.9, 0.0, train=600), _FEW, note="600 videos"),
        Cell(Knobs("h", 1 / 4, False, 0.9, 0.0, arrow="cause"), _FEW, note="it decides the label"),
        Cell(CENTRE, (BOTH, "ich", UNIFORM, "ich,ici"), labels="steps", note="steps"),
        Cell(Knobs("c", 1.0, False, 0.9, 0.0), (NONE, "ivc"), labels="steps", note="steps"),
    ]
}

QUICK = tuple(
    name for name in ("h pre=0 eta=0.9 rho=1/4", "h pre=1 eta=0.9 rho=1/4", "c pre=0 eta=0.9 rho=1")
)
"""The cells of `--quick`, with these heads and two seeds."""
QUICK_HEADS = (BOTH, "ich", UNIFORM, NONE, "ivc", "none, swap")

assert all(head in HEADS for cell in CELLS.values() for head in cell.heads)
