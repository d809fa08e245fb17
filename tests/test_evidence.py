"""The evidence study's own parts: baselines that learn, fair sizes, and a page that stays whole."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from baselines import BASELINES, ZERO_SHOT, as_many_parameters
from causal_evidence import (
    SCRIPT,
    density_table,
    require_same_sessions,
    signed,
)
from evidence.book import Book
from evidence.book import interval as interval_of
from evidence.cells import CELLS, SHARES
from evidence.expected import TABLE, holm, p_value, read_expectations, verdict
from evidence.heads import BOTH, HEADS
from evidence.measured import committed, measure, read_rows, write_rows
from evidence.pages import markdown, page
from evidence.predicted import cosine_gap, evidence, weight_gain
from evidence.runs import run_job
from evidence.training import Budget
from evidence.world import STRENGTH, Knobs, customary, make_world
from made_up import made_up_store
from made_up_predictions import make
from markupsafe import Markup
from synthetic import names, small_table
from written import END, begin, replace_tables

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError
from pcmci.heads.config import STAGES, ModelConfig
from pcmci.heads.scoring.bootstrap import Bootstrap, Interval
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.run import train_heads


def store_with_val(path, **options):
    table = small_table(90)
    splits = tuple(
        "val" if split == "test" and i % 2 else split for i, split in enumerate(table.splits)
    )
    table = dataclasses.replace(table, splits=splits)
    return made_up_store(
        path, "small", names("activity", 3), names("step", 5), table,
        frames=6, width=16, video_width=24, **options,
    )  # fmt: skip


def test_the_baselines_are_heads_that_learn(tmp_path):
    path = store_with_val(tmp_path / "s.zarr")
    with open_store(path) as store:
        for name, head in BASELINES.items():
            run = train_heads(
                store, head=head, out=tmp_path / "runs", epochs=20, lr=1e-2, progress=False
            )
            assert run.metrics["test"]["Acc"] > 0.5, name  # chance: a third


def test_cosines_are_no_probabilities():
    run = make(0)
    assert ZERO_SHOT not in density_table({"none": [run], ZERO_SHOT: [run]})


def test_the_wider_decoder_is_as_large_as_all_stages():
    text = np.zeros((7, 16), np.float32)
    wide = as_many_parameters(text, 24, 32)

    def parameters(order, feedforward):
        config = ModelConfig(order=order, feedforward=feedforward)
        return build_model(config, text, 24, seed=0).trained_parameters()

    one_unit = parameters((), 33) - parameters((), 32)
    assert abs(parameters((), wide) - parameters(STAGES, 32)) <= one_unit


def test_tables_are_replaced_and_the_rest_stays():
    page = f"# Words\n{begin(SCRIPT)}\nold\n{END}\nmore words\n"
    new = replace_tables(page, SCRIPT, "new")
    assert new.startswith("# Words\n")
    assert new.endswith("\nmore words\n")
    assert "old" not in new
    assert replace_tables(new, SCRIPT, "newer").count(begin(SCRIPT)) == 1
    for broken in ("# Words", page.replace(END, ""), page.replace(SCRIPT, "another.py")):
        with pytest.raises(PcmciError, match="between"):
            replace_tables(broken, SCRIPT, "new")


def test_other_sessions_are_not_paired():
    run = make(0)
    one = Bootstrap(run, "test", 5)
    require_same_sessions(one, Bootstrap(run, "test", 5))
    with pytest.raises(PcmciError, match="nothing is paired"):
        require_same_sessions(one, Bootstrap(run, "val", 5))


def test_what_excludes_zero_is_bold():
    assert signed(Interval(0.012, 0.003, 0.022)) == "**+1.2 [0.3, 2.2]**"
    assert signed(Interval(-0.01, -0.03, 0.01)) == "-1.0 [-3.0, 1.0]"


# --- level 0: a world of features ----------------------------------------------------------------


def small(confounder, **knobs):
    return make_world(Knobs(confounder, **{"train": 20, "scored": 30, **knobs}), 3)


@pytest.mark.parametrize("confounder", "hic")
def test_twins_differ_in_one_thing_alone(confounder):
    parts = small(confounder, share=1 / 4).parts
    seen_by = {"h": ["vlm"], "i": ["vlm", "video"], "c": ["video"]}[confounder]
    custom = parts["custom"]
    for twin in ("test", "shift", "other", "wrong"):
        other = parts[twin]
        assert np.array_equal(other.activity, custom.activity)
        for what in ("vlm", "video"):
            change = getattr(other, what) - getattr(custom, what)
            differs = other.confounder != custom.confounder
            there = (np.abs(change) > 1e-4).any(-1)
            if what not in seen_by:
                assert not there.any()
                continue
            assert np.array_equal(there.sum(1), 4 * differs)  # a fourth of 16 frames
            for k in np.flatnonzero(differs):  # the same two vectors in each of them
                among = change[k, there[k]]
                np.testing.assert_allclose(among, among[:1].repeat(4, 0), atol=1e-5)
                expected = 2**0.5 * STRENGTH[confounder]
                np.testing.assert_allclose(np.linalg.norm(among[0]), expected, rtol=1e-4)
    assert (parts["other"].confounder != custom.confounder).all()
    assert np.array_equal(parts["wrong"].confounder, custom.confounder ^ 1)
    causal = parts["causal"]
    assert np.array_equal(causal.confounder, custom.confounder)
    assert (causal.activity != custom.activity).all()


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_a_confounder_stands_in_its_share_of_the_frames(share, run):
    parts = small("h", share=share, run=run).parts
    there = (parts["custom"].vlm != parts["other"].vlm).any(-1)
    assert (there.sum(1) == share * 16).all()
    borders = np.abs(np.diff(np.pad(there.astype(int), ((0, 0), (1, 1))), axis=1)).sum(1)
    assert (borders == 2).all() or not run  # one run has a begin and an end


def test_partners_share_four_of_five_steps():
    steps = small("h").parts["train"].steps
    activity = small("h").parts["train"].activity
    by_activity = {a: steps[activity == a][0].astype(bool) for a in range(10)}
    for a, mine in by_activity.items():
        assert mine.sum() == 5
        assert (mine & by_activity[a ^ 1]).sum() == 4


def test_the_arrows_exchange_label_and_confounder():
    """P9: what is drawn first and what follows change places, and nothing else does."""
    label, cause = (small("c", arrow=arrow).parts["train"] for arrow in ("label", "cause"))
    assert np.array_equal(label.activity, cause.confounder)
    assert np.array_equal(label.confounder, cause.activity)
    always = small("i", eta_train=1.0, arrow="cause").parts["train"]
    assert np.array_equal(always.confounder, customary("i", always.activity))


def test_without_positions_a_head_is_a_set_function_of_the_frames():
    world = small("h", scored=6)
    part = world.parts["test"]
    vlm, video = torch.from_numpy(part.vlm), torch.from_numpy(part.video)
    shuffled = np.random.default_rng(0).permutation(16)
    for name, head in HEADS.items():
        model = build_model(head.config(), world.activity_text, 64, seed=0).eval()
        if model.keeps:
            model.keep(vlm, video)
        with torch.no_grad():
            as_is, moved = model(vlm, video), model(vlm[:, shuffled], video[:, shuffled])
        same = torch.allclose(as_is, moved, atol=1e-4)
        assert same == (head.head == "pcmci"), name  # experts know the place of a frame


def test_what_a_companion_passes_is_what_the_proofs_say():
    rho, delta, kappa = 0.25, 0.1, 40
    scores = np.where(np.arange(16) < 4, kappa * delta, 0.0)  # a fourth of the frames, nearer
    weights = np.exp(scores) / np.exp(scores).sum()
    assert float(weight_gain(rho, delta)) == pytest.approx(weights[:4].sum())
    assert float(weight_gain(1.0, delta)) == pytest.approx(1)  # P1
    assert cosine_gap(1.0) > 0 > cosine_gap(0.0)  # P3
    assert float(evidence(0.0)) == pytest.approx(0)  # P7


def test_expectations_name_what_the_study_has():
    found = read_expectations()
    assert len({(one.cell, one.head, one.control) for one in found}) == len(found)
    assert {one.cell[0] for one in found} == {"h", "i", "c"}
    table = TABLE.read_text()
    row = next(line for line in table.splitlines() if line.startswith("| c "))
    for broken, why in (
        (row.replace("| ivc |", "| ivd |"), "no ivd"),
        (row.replace("| 0 | no |", "| ? | no |"), "sign"),
        (row.replace("0.5 0.9", "0.7"), "eta=0.7"),
        (row.replace("| P5 |", "|"), "columns"),
    ):
        assert broken != row
        with pytest.raises(PcmciError, match=re.escape(why)):
            read_expectations(table.replace(row, broken, 1))


def test_holm_corrects_for_the_family():
    """Against the definition: the least p times m, the next times m - 1, in order."""
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm([0.2]), [0.2])


@pytest.mark.parametrize(
    ("sign", "value", "half", "adjusted", "said"),
    [
        ("-", -1.0, 0.2, 0.001, "hit"),
        ("+", -1.0, 0.2, 0.001, "miss"),
        ("-", -1.0, 2.0, 0.3, "undecided"),
        ("-", -0.1, 0.2, 0.3, "miss"),  # there is none to speak of
        ("0", -0.1, 0.2, 0.001, "hit"),
        ("0", -1.0, 0.2, 0.001, "miss"),
        ("0", -0.4, 0.2, 0.001, "undecided"),
    ],
)
def test_verdicts_go_by_the_rule(sign, value, half, adjusted, said):
    assert verdict(sign, Interval(value, value - half, value + half), adjusted) == said


def test_a_run_is_kept_and_measured(tmp_path, monkeypatch):
    name = "h pre=0 eta=0.9 rho=1/4"
    knobs = dataclasses.replace(CELLS[name].knobs, train=20, scored=10)
    monkeypatch.setitem(CELLS, name, dataclasses.replace(CELLS[name], knobs=knobs))
    budget = Budget(epochs=1, eval_every=1, batch_size=10, seeds=2)
    wanted = [(name, head) for head in (BOTH, "ich", "experts")]
    for job in wanted[:2]:
        run_job(tmp_path, job, budget)
    rows = measure(tmp_path, wanted, budget)  # one was not run, and is in no row
    assert {row.head for row in rows if row.kind == "effect"} == {BOTH, "ich"}
    (one,) = (
        r for r in rows if r.kind == "difference" and r.chosen == "val" and r.measure == "CDE"
    )
    assert (one.head, one.control, one.sign) == ("ich", BOTH, "-")
    path = write_rows(rows, tmp_path / "rows.parquet", {"runs": "2"})
    assert read_rows(path) == (rows, {"runs": "2"})


def test_rows_agree_with_each_other():
    """What stands in a comparison is the difference of what stands in its two heads' runs, and the
    verdicts follow from the intervals."""
    rows, _ = committed()
    book = Book(rows)
    expected = [row for row in book.differences() if row.sign]
    assert expected
    for row in book.differences():
        mine, its = (book.seeds(row.cell, name, "CDE") for name in (row.head, row.control))
        assert row.value == pytest.approx(np.mean(mine) - np.mean(its), abs=1e-6)
    for confounder in "hic":
        family = [row for row in expected if row.confounder == confounder]
        adjusted = holm([p_value(interval_of(row)) for row in family])
        for row, p in zip(family, adjusted, strict=True):
            assert row.verdict == verdict(row.sign, interval_of(row), p)
    expectations = {(e.cell, e.head, e.control): e.sign for e in read_expectations()}
    assert {(r.cell, r.head, r.control): r.sign for r in expected}.items() <= expectations.items()


def test_the_page_says_what_the_rows_say():
    rows, about = committed()
    text = (Path(__file__).parents[1] / "docs" / "evidence.md").read_text()
    written = markdown(page(rows, about, draw=False))
    assert replace_tables(text, "benchmarks/evidence/study.py", written) == text
    html = (Path(__file__).parents[1] / "docs" / "evidence" / "index.html").read_text()
    for section in page(rows, about, draw=False).sections:
        for words in section.words:
            assert str(Markup.escape(words)) in html


def test_what_the_page_claims_holds_in_the_rows():
    """Its sentences are ours, and only their numbers are looked up."""
    book = Book(committed()[0])
    pairs = {"ici": ("i", "none"), "ivc": ("c", "none"), "ivc, cross": ("c", "none")}
    for head, (confounder, control) in pairs.items():
        rows = [
            row
            for row in book.differences()
            if (row.head, row.control, row.confounder) == (head, control, confounder)
            and row.labels == "activity"
        ]
        assert rows
        assert not any(row.removes for row in rows)  # findings 4 and 5
        if confounder == "c":
            assert not any(row.lowers and row.keeps for row in rows)
    of_ich = {
        (row.pre, row.rho): row
        for row in book.differences()
        if (row.head, row.control, row.eta) == ("ich", BOTH, 0.9) and not CELLS[row.cell].note
    }
    assert all(of_ich[0.0, rho].removes for rho in (1 / 4, 1 / 2))  # 1
    assert all(of_ich[1.0, rho].value > 0 for rho in (1 / 16, 1 / 4))  # 2
    assert all(of_ich[pre, 1.0].high < 0 for pre in (0.0, 1.0))  # 3
