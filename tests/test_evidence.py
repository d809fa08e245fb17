"""The evidence study's own parts: baselines that learn, fair sizes, and a page that stays whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from baselines import BASELINES, ZERO_SHOT, as_many_parameters
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
