"""The evidence study's own parts: baselines that learn, fair sizes, and a page that stays whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from baselines import ZERO_SHOT, as_many_parameters, baselines, best_on_val
from causal_evidence import (
    SCRIPT,
    density_table,
    require_same_sessions,
    signed,
)
from made_up import made_up_store
from made_up_predictions import make
from synthetic import names, small_table
from written import END, begin, replace_tables

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError
from pcmci.heads.config import STAGES, ModelConfig
from pcmci.heads.scoring.bootstrap import Bootstrap, Interval
from pcmci.heads.scoring.scores import score
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


def any_run(path, out):
    with open_store(path) as store:
        return train_heads(
            store, "none", out=out, epochs=1, feedforward=8, decoder_heads=2, progress=False
        ).predictions


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_baselines_predict_the_videos_of_a_run_and_learn(tmp_path):
    path = store_with_val(tmp_path / "s.zarr")
    like = any_run(path, tmp_path / "runs")
    found = baselines(path, like, seeds=2)
    assert [len(runs) for runs in found.values()] == [1, 1, 2]
    for runs in found.values():
        for predictions in runs:
            assert (predictions.ids == like.ids).all()
            assert score(predictions)["test"]["Acc"] > 0.5  # chance: a third


def test_a_store_with_lost_videos_is_not_compared(tmp_path):
    path = store_with_val(tmp_path / "s.zarr", failed=(3,))
    with pytest.raises(PcmciError, match="1 videos are missing"):
        baselines(path, any_run(path, tmp_path / "runs"), seeds=1)


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


def test_validation_chooses_and_the_test_does_not():
    splits = np.array(["train", "val", "val", "test", "test"])
    target = np.array([0, 0, 1, 0, 1])
    good_on_val = np.array([[0, 1], [1, 0], [0, 1], [0, 1], [1, 0]])
    good_on_test = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]])
    assert best_on_val([good_on_test, good_on_val], target, splits) is good_on_val


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
