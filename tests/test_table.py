"""Tables for a terminal: what is shown, and what an undefined score looks like."""

from rich.console import Console

from pcmci.heads.scoring.bootstrap import Interval
from pcmci.report.table import orders_table, percent, signed


def rendered(table) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_numbers_are_percent_and_nothing_is_a_dash():
    assert percent(0.97461) == "97.46"
    assert percent(None) == "–"
    assert signed(Interval(-0.012, -0.0305, 0.0)) == "-1.20, -3.05 to 0.00"


def test_an_order_stands_beside_its_difference_and_what_chose_is_left_out():
    scores = {
        order: {split: {"Acc": value} for split in ("val", "test", "shift-h")}
        for order, value in (("none", 0.5), ("ich", 0.75))
    }
    against = {"ich": {s: Interval(0.25, 0.125, 0.375) for s in ("test", "shift-h")}}
    shown = rendered(orders_table(scores, "Acc", against))
    assert "val" not in shown
    assert "50.00" in shown
    assert "75.00" in shown
    assert shown.count("+25.00, 12.50 to 37.50") == 2
    assert "+" not in rendered(orders_table(scores, "Acc"))
