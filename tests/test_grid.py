"""The words of a sweep: orders, seeds, values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import small_store

from pcmci.cache.store import open_store
from pcmci.errors import UsageError
from pcmci.heads.ablation.grid import (
    MATTERS_WITH,
    PAPER_ORDERS,
    is_tried,
    matters,
    models_of,
    parse_grid,
    parse_models,
    parse_orders,
    parse_seeds,
)
from pcmci.heads.ablation.probe import bytes_of_a_run, seconds_of_a_step
from pcmci.heads.ablation.summary import _is_ours
from pcmci.heads.ablation.sweep import plan_sweep
from pcmci.heads.catalogue import configure, settings
from pcmci.heads.config import ORDERS, TrainConfig, order_name
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import train_heads


def test_named_orders():
    assert parse_orders("all") == ORDERS
    assert parse_orders("Paper ") == PAPER_ORDERS
    assert set(PAPER_ORDERS) < set(ORDERS)
    assert len(set(PAPER_ORDERS)) == 11


@given(st.lists(st.sampled_from(ORDERS), min_size=1, unique=True))
def test_orders_are_read_back(orders):
    assert parse_orders("; ".join(map(order_name, orders))) == tuple(orders)


@pytest.mark.parametrize("text", ["ich;", ";ich", "ich;;", " ich ; "])
def test_only_orders_that_are_named_are_trained(text):
    assert parse_orders(text) == (("ich",),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ich;ich", "ich is there twice"),
        ("none;ich;none;ich", "ich; none are there twice"),
        (" ; ", "--orders: name one"),
        ("ich;ocr", "--orders 'ocr': 'ocr' is no stage"),
        ("ich,ich", "a stage is repeated"),
        ("every", "use all, paper or orders as"),
    ],
)
def test_what_is_no_list_of_orders(text, says):
    with pytest.raises(UsageError, match=says):
        parse_orders(text)


@given(st.integers(1, 1000))
def test_a_number_of_seeds(n):
    assert parse_seeds(str(n)) == tuple(range(n))


def test_named_seeds():
    assert parse_seeds("3,7") == (3, 7)
    assert parse_seeds("3,") == (3,)


@pytest.mark.parametrize("text", ["0", "-1", "1001", "3,3", "a", "", ",", "1.5", "3,-1"])
def test_what_are_no_seeds(text):
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)


def test_values_have_the_type_of_their_setting():
    grid = parse_grid(["lr=1e-3, 3e-3", "relations=1,4", "norm=true,False", "transport.lambda=1"])
    assert grid == {
        "lr": (1e-3, 3e-3),
        "relations": (1, 4),
        "norm": (True, False),
        "transport_lambda": (1.0,),
    }
    assert [type(v) for v in grid["relations"]] == [int, int]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["lr"], "use SETTING=VALUE"),
        (["lr="], "use SETTING=VALUE"),
        (["lrr=1"], "did you mean 'lr'"),
        (["lr=a"], "'a' will not do; use numbers"),
        (["relations=1.5"], "use whole numbers"),
        (["norm=yes"], "use true or false"),
        (["lr=1,1.0"], "a value is repeated"),
        (["lr=-1"], "lr -1.0 must be above 0"),
        (["mixing=odd"], "'odd' is none of"),
        (["seed=1,2"], "--seeds"),
        (["lr=1", "lr=2"], "there twice"),
    ],
)
def test_what_is_no_grid(texts, says):
    with pytest.raises(UsageError, match=says):
        parse_grid(texts)


def test_settings_of_training_are_tried():
    for name, (config, _) in settings().items():
        assert is_tried(name) == (config is TrainConfig)


OTHER = {
    "relations": 2, "transport_lambda": 9.0, "transport_temperature": 3.0,
    "transport_refine": "plan", "mixing": "residual", "mixer_noise": 0.9,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_does_not_matter_changes_nothing(name, tmp_path):
    """Of every setting that is left out of an order's rows, by training it both ways."""
    quick = {"epochs": 1, "relations": 4, "decoder_heads": 4, "feedforward": 24, "progress": False}
    with open_store(small_store(tmp_path / "small.h5")) as store:
        orders = [order for order in ((), ("ich",), ("ici",), ("ivc",)) if not matters(name, order)]
        assert orders
        for order in orders:
            runs = [
                train_heads(store, order, out=tmp_path / "runs", **(quick | changed))
                for changed in ({}, {name: OTHER[name]})
            ]
            first, second = (run.predictions.labels["steps"].logits for run in runs)
            np.testing.assert_array_equal(first, second)
            assert runs[0].path != runs[1].path


def test_no_order_says_which_stages_another_head_has():
    assert all(matters(name, (), "experts") for name in ("transport_lambda", "relations"))
    assert not matters("experts_of", ("ich",))
    assert not matters("relations", (), "mlp")


def test_experts_are_named_without_commas_where_those_part_values():
    assert parse_grid(["experts-of=v/p,v/ich+ici"]) == {"experts_of": ("v/p", "v/ich+ici")}


def test_what_matters_is_known_by_its_stages():
    for beginning, stages in MATTERS_WITH.items():
        named = [name for name in settings() if name.startswith(beginning)]
        assert named
        for order in ORDERS:
            for name in named:
                assert matters(name, order) == bool(set(order) & set(stages))
    assert all(matters("dropout", order) for order in ORDERS)


def planned(heads, orders, grid, **values):
    return plan_sweep(
        models_of(heads, orders), (0,), parse_grid(grid), ("activity",), values, reference=None,
        precision="fp32", device="cpu", has_validation=True,
    ).trials  # fmt: skip


def test_a_row_says_what_was_trained_where_a_head_has_its_own_value():
    """Its own spelling counts before the common one, as a flag and in a grid."""
    trials = planned(("pcmci", "mlp"), ((),), ["dropout=0,0.5"], mlp_dropout=0.3)
    found = [(t.variant.name, t.recipe.model.dropout) for t in trials]
    assert found == [("none dropout=0.0", 0.0), ("none dropout=0.5", 0.5), ("mlp", 0.3)]


@pytest.mark.parametrize(
    ("values", "ours"), [({}, False), ({"tune": "text"}, False), ({"centre": 1.0}, True)]
)
def test_a_flag_of_ours_makes_a_row_ours(values, ours):
    (trial,) = planned(("pcmci",), (("ich", "ici"),), [], **values)
    assert _is_ours(trial) == ours


def test_a_heads_own_spelling_is_one_of_a_grid():
    trials = planned(("mlp",), (), ["mlp.hidden=8,16"])
    assert [trial.recipe.model.hidden for trial in trials] == [8, 16]
    assert not is_tried("mlp_hidden")


@pytest.mark.parametrize(("bias", "rows"), [(False, 1), (True, 2)])
def test_the_temperature_matters_wherever_posteriors_are_looked_at(bias, rows):
    grid = ["transport.temperature=0.01,0.05"]
    assert len(planned(("pcmci",), (("ici",),), grid, order_bias=bias)) == rows


def test_none_among_the_heads_is_one_order():
    assert len(parse_models("none,mlp", None)) == 2
    assert len(parse_models("none,mlp", "all")) == len(ORDERS) + 1  # where all are asked for
    assert len(parse_models("none,mlp", "ich")) == 3
    assert len(parse_models("mlp", None)) == 1
    for orders in (None, "all"):
        assert len(parse_models("pcmci,none", orders)) == len(ORDERS)


def test_one_value_in_two_spellings_is_refused():
    with pytest.raises(UsageError, match="repeated in another spelling"):
        parse_grid(["tune=text/classifier,classifier/text"])


def test_the_same_experts_are_one_run_however_they_are_spelled():
    spelled = [configure((), (), {"experts_of": text}, "experts") for text in ("v,vc", "v/vc")]
    assert spelled[0] == spelled[1]


def test_a_head_that_trains_nothing_can_be_planned(tmp_path):
    recipe = Recipe(*configure((), ("activity",), {}, "zero-shot"), "fp32", "cpu")
    with open_store(small_store(tmp_path / "store.h5")) as store:
        assert seconds_of_a_step(store, [recipe], "activity", torch.device("cpu")) == 0
        assert bytes_of_a_run(store, recipe, "activity") == 0
