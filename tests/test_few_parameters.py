"""The table of few tuned parameters: rows told by content, true to the runs, the paper's beside."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from made_up import made_up_store
from synthetic import names, small_table

from pcmci.cache.store import open_store
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.catalogue import configure
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.run import load_run
from pcmci.report.few_parameters import CONTROL, few_parameters
from pcmci.report.page import Section
from pcmci.report.paper import FEW_PARAMETERS, TUNED_SHARES, reported_tuned
from pcmci.report.rows import read_rows

QUICK = {"epochs": 1, "batch_size": 40}  # and the paper's sizes, or nothing of it stands beside


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    here = tmp_path_factory.mktemp("few")
    path = made_up_store(
        here / "breakfast.h5", "breakfast", names("activity", 3), names("step", 5), small_table(),
        frames=6, width=16, video_width=24,
    )  # fmt: skip
    with open_store(path) as store:
        found = ablate(
            store, "none; ich,ici; ivc; ich,ici,ivc", 1, heads="pcmci,linear",
            grid={"tune": ("all", "text,classifier")}, out=here / "runs", results=here,
            resamples=0, workers=1, progress=False, **QUICK,
        )  # fmt: skip
    return read_rows(found.path)


def section(rows, **changed) -> Section | None:
    facts = {**rows.facts, **changed}
    return few_parameters(rows.tables["results"], rows.summary, facts, "test")


def table(rows) -> dict[str, dict]:
    (found,) = section(rows).blocks
    by_name = [
        {name: cells[k] for k, name in enumerate(found.head)}
        | {"shares": [cells[k] for k, name in enumerate(found.head) if name == "share (%)"]}
        for cells in found.rows
    ]
    return {row["row"]: row for row in by_name}


def test_rows_are_told_by_what_is_in_them(rows):
    found = table(rows)
    assert list(found) == [
        "none tune=all", "none tune=text,classifier", "ich,ici tune=all",
        "ich,ici tune=text,classifier", "ivc tune=text,classifier", "ich,ici,ivc tune=all",
        "ich,ici,ivc tune=text,classifier",
    ]  # fmt: skip
    beside = {name: row["the paper's row"] for name, row in found.items() if row["the paper's row"]}
    assert beside == {
        "ich,ici tune=all": "text and classifier",
        "ich,ici,ivc tune=all": "visual module too",
        "ich,ici,ivc tune=text,classifier": "text and classifier",
    }
    assert found["ich,ici tune=all"]["its share (%)"] == "5.41"
    assert found["ich,ici,ivc tune=all"]["its Acc (%)"] == "90.70"


def test_numbers_and_shares_are_those_of_the_runs(rows):
    found = table(rows)
    for row in rows.tables["results"]:
        if row["variant"] not in found:
            continue
        run = load_run(row["run"])
        shown = found[row["variant"]]
        for place, labels in enumerate(("activity", "steps")):
            facts = run.heads[labels]
            assert shown[f"{labels}: numbers"] == f"{facts['trained parameters'] / 1e6:.2f} M"
            assert shown["shares"][place] == f"{100 * facts['trained share']:.2f}"


def test_a_share_that_was_not_kept_is_computed_or_left_out(rows):
    before = table(rows)
    old = [
        {name: value for name, value in row.items() if not name.endswith("trained share")}
        for row in rows.tables["results"]
    ]
    (found,) = few_parameters(old, rows.summary, rows.facts, "test").blocks
    place = found.head.index("share (%)")
    for row in found.rows:
        whole = str(row[0]).endswith("tune=all")
        assert row[place] == (before[row[0]]["shares"][0] if whole else "–")


def test_the_control_is_as_large_as_it_says(rows):
    (line,) = [words for words in section(rows).words if "control" in words]
    widths = dict(re.findall(r"--feedforward (\d+) for (\w+)", line))
    assert sorted(widths.values()) == ["activity", "steps"]
    for width, labels in widths.items():
        config, _ = configure((), (), {**QUICK, "feedforward": int(width)})
        n = {"activity": 3, "steps": 5}[labels]
        with torch.device("meta"):
            model = build_model(config, np.zeros((n, 16), np.float32), 24, 0)
        assert abs(model.trained_parameters() - CONTROL) <= 17


def test_it_is_there_where_the_paper_has_one_or_a_part_was_tuned(rows):
    assert section(rows, dataset="kitchen") is not None
    whole = [row for row in rows.tables["results"] if row.get("tune") == "all"]
    assert few_parameters(whole, rows.summary, rows.facts, "test") is not None
    assert few_parameters(whole, rows.summary, {**rows.facts, "dataset": "kitchen"}, "test") is None
    heads = [row for row in rows.tables["results"] if row["head"] == "linear"]
    assert few_parameters(heads, rows.summary, rows.facts, "test") is None


def test_the_papers_figures_stand_once():
    figures = FEW_PARAMETERS["breakfast", "Acc"]
    assert [reported_tuned("breakfast", order) for order in TUNED_SHARES] == list(figures.values())
    for (title, share), said in zip(TUNED_SHARES.values(), figures, strict=True):
        assert title.split(" ")[0] in said
        assert f"{100 * share:.2f} %" in said
    assert reported_tuned("coin", "ich,ici") is None
