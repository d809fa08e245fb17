"""The benchmarks' bookkeeping: what a row says, how pairs are taken, and that scripts run."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from claims import paired, ratio_row, row, table

QUICK = ("start", "store", "transport")
"""Scripts that take seconds with --quick; the others take too long for a test."""


@pytest.mark.parametrize(
    ("value", "aim", "met"),
    [
        (0.35, "at most 0.35", True),
        (0.354, "at most 0.35", True),  # as the table shows it
        (0.356, "at most 0.35", False),
        (0.85, "at least 0.85", True),
        (0.84, "at least 0.85", False),
        (7.0, "", None),
    ],
)
def test_a_row_knows_whether_its_aim_is_met(value, aim, met):
    assert row("claim", "case", [value], aim=aim).met is met


def test_a_missed_aim_stays_in_the_table_with_its_number():
    text = table([row("load", "zarr", [2.0, 1.0, 3.0], aim="at most 1.5", note="why")])
    assert "**2.00** | 1.50 to 2.50 | at most 1.5 | **missed** | why" in text.splitlines()[-1]


def test_pairs_alternate_and_keep_their_columns():
    calls = []
    pairs = paired(lambda: calls.append("a"), lambda: calls.append("b"), 3)
    assert pairs.shape == (3, 2)
    assert "".join(calls) == "baabbaab"  # the first pair warms
    assert (pairs >= 0).all()


def test_a_ratio_is_of_each_pair():
    found = ratio_row("c", "x", np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]]), note="made up")
    assert (found.low, found.value, found.high) == (0.75, 1.0, 1.25)
    assert found.note == "2 s / 2 s; made up"


@pytest.mark.slow
def test_scripts_run_one_after_the_other_into_one_table(tmp_path, request):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n<!-- begin: written by benchmarks/all.py -->\n<!-- end -->\n")
    script = request.config.rootpath / "benchmarks" / "all.py"
    command = [sys.executable, str(script), "--quick", "--out", str(tmp_path), "--page", str(page)]
    subprocess.run([*command, "--only", *QUICK], check=True, stdout=subprocess.DEVNULL)
    report = json.loads((tmp_path / "performance.json").read_text())
    assert not report["failed"]
    assert {one["claim"] for one in report["rows"]} >= {"start", "load", "transport"}
    assert report["machine"]["processor"]
    assert (tmp_path / "performance.md").read_text() in page.read_text()


@pytest.mark.slow
def test_a_script_that_fails_stands_in_the_table(tmp_path, request, monkeypatch):
    import all as runner

    monkeypatch.setattr(runner, "run", lambda name, path, quick: 3)
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "start", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        runner.main()
    assert stopped.value.code == 1
    assert "start ended with exit code 3" in (tmp_path / "performance.md").read_text()
