"""The words of a sweep: orders, seeds, values."""

from __future__ import annotations

import numpy as np
import pytest
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
    parse_grid,
    parse_orders,
    parse_seeds,
)
from pcmci.heads.catalogue import settings
from pcmci.heads.config import ORDERS, TrainConfig, order_name
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
