"""Scores that cannot be computed: said once, in words; no NaN, and nobody's warning, anywhere."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import made_up_store
from synthetic import names, small_table

from pcmci.heads.scoring.scores import why_undefined
from pcmci.report.ablation import write_report
from pcmci.report.table import difference

FLAGS = [
    "--epochs", 1, "--relations", 4, "--decoder-heads", 4, "--feedforward", 24,
]  # fmt: skip
SWEEP = [
    *FLAGS,
    "--orders",
    "none;ich",
    "--seeds",
    2,
    "--workers",
    1,
    "--resamples",
    40,
    "--tau",
    0.6,
]
WHY = "mAP on test: not computed, no step has a positive video"


def made(path, positive):
    """A store in whose test split only these videos have steps."""
    table = small_table()
    occurs = table.steps.copy()
    test = [row for row, split in enumerate(table.splits) if split == "test"]
    occurs[[row for row in test if row not in test[:positive]]] = 0
    table = dataclasses.replace(table, steps=occurs)
    return made_up_store(
        path, "small", names("activity", 3), names("step", 5), table, frames=6, width=16,
        video_width=24,
    )  # fmt: skip


@pytest.fixture(scope="module")
def none_positive(tmp_path_factory):
    return made(tmp_path_factory.mktemp("stores") / "none.h5", 0)


def strictly(text):
    """JSON as others read it."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def check_words_alone(answer):
    assert answer.code == 0, answer.err
    for text in (answer.out, answer.err):
        assert "nan" not in text.lower()
        assert "warning" not in text.lower()


def without_scripts(page):
    return re.sub(r"(?s)<script>.*?</script>", "", page).lower()


def test_a_sweep_says_once_that_a_score_is_not_there(none_positive, tmp_path, pcmci, monkeypatch):
    command = ["ablate", "--features", none_positive, *SWEEP]
    command += ["--out", tmp_path / "runs", "--results", tmp_path / "tables"]
    answer = pcmci(*command)
    check_words_alone(answer)
    assert answer.out.count("mAP") == 1
    assert WHY in answer.out.splitlines()
    assert "Acc on test (percent)" in answer.out
    (folder,) = (tmp_path / "tables").iterdir()
    page = (folder / "index.html").read_text()
    assert page.count(WHY) == 1
    assert "nan" not in without_scripts(page)
    there = {file.stem for file in (folder / "figures").iterdir()}
    assert "scores" in there
    assert "classes" not in there  # the AP of no step
    monkeypatch.setattr("pcmci.report.ablation.write_report", lambda folder: folder)
    told = pcmci(*command, "--json")
    check_words_alone(told)
    rows = {(row["variant"], row["score"]): row for row in strictly(told.out)["summary"]}
    lost = rows["ich", "mAP"]
    assert lost["undefined"] == "no step has a positive video"
    for name in ("mean", "sd", "difference", "low", "high", "excludes zero"):
        assert lost[name] is None
    assert rows["ich", "Acc"]["undefined"] == ""


def test_a_run_and_its_scores_say_so_too(none_positive, tmp_path, pcmci):
    trained = pcmci("train-heads", "--features", none_positive, "--out", tmp_path, *FLAGS)
    check_words_alone(trained)
    assert WHY in trained.out.splitlines()
    told = pcmci("train-heads", "--features", none_positive, "--out", tmp_path, *FLAGS, "--json")
    found = strictly(told.out)
    assert found["scores"]["test"]["mAP"] is None
    assert found["undefined"] == {"test": {"mAP": "no step has a positive video"}}
    again = pcmci("evaluate", found["run"])
    check_words_alone(again)
    assert WHY in again.out.splitlines()
    told = strictly(pcmci("evaluate", found["run"], "--json").out)
    assert told["undefined"] == found["undefined"]


def test_where_some_draws_hold_nothing_there_is_a_difference_and_no_interval(
    tmp_path, pcmci, monkeypatch
):
    """Two videos of one session have steps: many a draw of sessions is without it."""
    store = made(tmp_path / "one.h5", 2)
    command = ["ablate", "--features", store, *SWEEP]
    command += ["--out", tmp_path / "runs", "--results", tmp_path / "tables"]
    answer = pcmci(*command)
    check_words_alone(answer)
    assert ", no interval" in answer.out
    assert "no interval: some draws of the bootstrap hold nothing that could be scored" in (
        answer.out.splitlines()
    )
    (folder,) = (tmp_path / "tables").iterdir()
    assert "nan" not in without_scripts((folder / "index.html").read_text())
    with monkeypatch.context() as patch:
        patch.setattr("pcmci.report.ablation.write_report", lambda folder: folder)
        rows = strictly(pcmci(*command, "--json").out)["summary"]
    (row,) = [row for row in rows if (row["variant"], row["score"]) == ("ich", "mAP")]
    assert row["mean"] is not None
    assert row["difference"] is not None
    assert (row["low"], row["high"], row["excludes zero"]) == (None, None, None)

    # As tables of earlier versions have it.
    table = pq.read_table(folder / "summary.parquet")
    older = [{**row, "low": math.nan, "high": math.nan} for row in table.to_pylist()]
    older = [{k: v for k, v in row.items() if k != "undefined"} for row in older]
    pq.write_table(pa.Table.from_pylist(older), folder / "summary.parquet")
    assert "nan" not in without_scripts(write_report(folder).read_text())


def test_a_row_without_a_difference_has_an_empty_cell():
    row = {"reference": False, "seeds": 0, "difference": math.nan, "low": math.nan}
    assert difference({**row, "high": math.nan, "excludes zero": False}) == ""


@pytest.mark.parametrize(
    ("scores", "name", "why"),
    [
        ({"Acc": 0.5}, "Acc", ""),
        ({"Acc": None}, "Acc", "no video has an activity label"),
        ({"mAP": None}, "mAP", "no step has a positive video"),
        ({"mAP w/o SIL": None}, "mAP w/o SIL", "no step but SIL has a positive video"),
        ({"with features": 0}, "ODD@0.6", "no video has features"),
        ({"with features": 3}, "ODD@0.6", "there are fewer than two steps"),
    ],
)
def test_every_score_has_its_reason(scores, name, why):
    assert why_undefined(scores, name) == why


def test_json_has_no_nan(capsys):
    from pcmci.commands import showing

    showing.print_json({"a": [np.nan, (math.inf, 1.0)], "b": {"c": -math.inf, "d": "nan"}})
    said = capsys.readouterr().out
    assert strictly(said) == {"a": [None, [None, 1.0]], "b": {"c": None, "d": "nan"}}


NOISY = """
import logging, sys, warnings
from pcmci import cli

@cli.app.command()
def noisy():
    import numpy as np
    warnings.warn("of some library")
    np.float64(1) / np.zeros(1)
    logging.getLogger("library").warning("retrying")
    logging.warning("to the root")
    print("ours", file=sys.stderr)

cli.main()
"""


def test_what_libraries_warn_of_reaches_nobody():
    said = subprocess.run([sys.executable, "-c", NOISY, "noisy"], capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "ours\n")
    asked = [sys.executable, "-W", "always", "-c", NOISY, "noisy"]
    assert "of some library" in subprocess.run(asked, capture_output=True, text=True).stderr
