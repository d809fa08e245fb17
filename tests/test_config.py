"""Settings: every bad value is one clear line, every default stands in one place."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmci.errors import UsageError
from pcmci.heads.catalogue import (
    DEFAULT,
    HEADS,
    check_stages,
    configure,
    flags,
    head_settings,
    owners,
    settings,
)
from pcmci.heads.config import (
    ORDERS,
    STAGES,
    ModelConfig,
    TrainConfig,
    TransportConfig,
    check_order,
    order_name,
    parse_memory,
    parse_order,
    parse_taus,
    parse_tune,
)
from pcmci.heads.settings import flag_name, recorded

CONFIGS = (*(entry.config for entry in HEADS.values()), TrainConfig, TransportConfig)

# Orders.


def test_there_are_sixteen_orders_and_the_empty_one_comes_first() -> None:
    assert len(set(ORDERS)) == len(ORDERS) == 16
    assert ORDERS[0] == ()
    assert set(permutations(STAGES)) <= set(ORDERS)


@pytest.mark.parametrize("order", ORDERS, ids=order_name)
def test_an_order_is_read_back_from_its_name(order: tuple[str, ...]) -> None:
    assert parse_order(order_name(order)) == check_order(order) == order


@given(
    st.sampled_from(ORDERS[1:]),
    st.text(alphabet=" \t", max_size=3),
    st.sampled_from([str.upper, str.title, str.lower]),
)
def test_spaces_and_capitals_do_not_matter(order: tuple[str, ...], space: str, case: Any) -> None:
    assert parse_order(",".join(f"{space}{case(stage)}{space}" for stage in order)) == order


@pytest.mark.parametrize("text", ["", "none", "None", "  NONE  ", "  "])
def test_no_stages(text: str) -> None:
    assert parse_order(text) == ()


@given(st.lists(st.sampled_from([*STAGES, "", "none", "ihc", "ich;ici", "ICH"]), max_size=4))
def test_whatever_is_no_order_is_refused(parts: list[str]) -> None:
    """Either one of the sixteen, or an error that shows what was written and what is right."""
    text = ",".join(parts)
    meant = () if text in ("", "none") else tuple(part.lower() for part in parts)
    if meant in ORDERS:
        assert parse_order(text) == meant
        return
    with pytest.raises(UsageError, match="an order is any of ich, ici, ivc once each") as caught:
        parse_order(text)
    assert str(caught.value).startswith(f"--order {text!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ich,icx", "'icx' is no stage"),
        ("ich,,ivc", "an empty stage"),
        ("ich,", "an empty stage"),
        ("ich,ici,ich", "a stage is repeated"),
        ("none,ich", "'none' is no stage"),
    ],
)
def test_what_is_wrong_with_an_order_is_named(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_order(text)
    with pytest.raises(UsageError, match=why):
        ModelConfig(order=tuple(text.split(",")))


# Values.

NAN, INFINITY = float("nan"), float("inf")
BAD = [
    *[("temperature", value) for value in (0.0, -1.0, NAN, INFINITY, "warm", True)],
    *[("lam", value) for value in (0, -0.5, NAN)],
    *[("tolerance", value) for value in (0.0, NAN)],
    *[("max_iterations", value) for value in (0, -3, 10.0)],
    *[("refine", value) for value in ("Product", "", None)],
    ("source", "text"),
    ("gradient", "last_step"),
    *[("relations", value) for value in (0, -8, 2.5, "8")],
    *[("mixing", value) for value in ("labels", 1)],
    *[("mixer_noise", value) for value in (NAN, INFINITY, "little")],
    *[("norm", value) for value in ("false", 0, None)],
    *[("tune", value) for value in ("", "head", "text,text", "all,text", "text;visual", None, 3)],
    ("tokens", "vlm"),
    *[("decoder_heads", value) for value in (0, 1.5)],
    *[("feedforward", value) for value in (0, "1024")],
    *[("dropout", value) for value in (-0.1, 1.0, 1, NAN)],
    ("self_attention", 1),
    *[("positions", value) for value in ("Sinusoidal", True)],
    ("front_door", "back"),
    *[("front_door_videos", value) for value in (-1, 2.5)],
    ("order_bias", 1),
    *[(name, value) for name in ("centre", "swap", "gamma") for value in (-0.1, 1.5, NAN, "half")],
    *[("experts_of", value) for value in ("", "q", "v,v", "ich+v", None, 3)],
    ("experts", "together"),
    ("combine", "vote"),
    *[("scale", value) for value in (0.0, -1.0, NAN)],
    *[("hidden", value) for value in (0, 1.5, "512")],
    *[(name, value) for name in ("bank", "queries") for value in (0, -1, 2.5, "10")],
    *[("blocks", value) for value in (0, 1, 2.5)],
    *[("inner", value) for value in (-1, 2.5, NAN)],
    ("detach", 1),
    ("positions", "Sinusoidal"),
    *[("channels", value) for value in (-1, 2.5)],
    *[(name, value) for name in ("layers", "levels", "groups") for value in (0, 2.5)],
    *[("states", value) for value in (0, 63, 2.5)],
    ("scales", "sizes"),
    *[(name, value) for name in ("update", "short", "long") for value in ("lifo", "")],
    *[(name, 1) for name in ("modulate", "meet")],
    *[("epochs", value) for value in (0, -1, 1.5, "10", True)],
    *[("batch_size", value) for value in (0, 32.0)],
    *[("lr", value) for value in (0.0, -1e-3, NAN, INFINITY, "fast")],
    *[("weight_decay", value) for value in (-0.01, NAN, INFINITY)],
    ("optimiser", "sgd"),
    *[("warmup", value) for value in (-0.1, 1.0, NAN)],
    *[("clip", value) for value in (0.0, INFINITY)],
    *[("validation", value) for value in (-0.1, 1.0, NAN)],
    *[("eval_every", value) for value in (0, 2.5)],
    *[("seed", value) for value in (-1, 2**32, 0.5)],
]


def having(name: str) -> list[tuple[type, dataclasses.Field[Any]]]:
    """All that have a field of this name."""
    return [
        (config, entry)
        for config in CONFIGS
        for entry in dataclasses.fields(config)
        if entry.name == name
    ]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda part: str(part))
def test_a_bad_value_is_one_line_with_the_setting_and_the_value(name: str, value: Any) -> None:
    assert having(name)
    for config, entry in having(name):
        with pytest.raises(UsageError) as caught:
            config(**{name: value})
        message = str(caught.value)
        assert message.startswith(f"{flag_name(entry)} ")
        assert str(value) in message
        assert "\n" not in message


def test_every_setting_is_tried_with_a_bad_value() -> None:
    assert {name for name, _ in BAD} == {entry.name for _, entry in settings().values()}


def test_the_edges_are_allowed() -> None:
    assert ModelConfig(dropout=0.0, mixer_noise=0, relations=1).relations == 1
    assert TrainConfig(warmup=0.0, weight_decay=0, validation=0, seed=2**32 - 1, lr=1).lr == 1
    assert TransportConfig(lam=1, max_iterations=1).lam == 1


def test_a_label_set_is_learned_once() -> None:
    with pytest.raises(UsageError, match="--labels 'steps,steps': a label set is repeated"):
        TrainConfig(labels=("steps", "steps"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", "all"),
        ("text,classifier", "text,classifier"),
        ("Classifier / text", "text,classifier"),
        ("visual", "visual"),
        ("classifier,visual,text", "all"),
    ],
)
def test_what_is_tuned_has_one_spelling(text: str, meant: str) -> None:
    assert parse_tune(text) == meant
    assert ModelConfig(tune=text) == ModelConfig(tune=meant)


# Settings by name.


def test_every_choice_is_a_setting_with_help() -> None:
    own_arguments = {"order", "labels", "transport"}
    fields = [entry for config in CONFIGS for entry in dataclasses.fields(config)]
    named = [entry for _, entry in settings().values()]
    assert {entry.name for entry in fields} - own_arguments == {entry.name for entry in named}
    transports = sum(entry.name == "transport" for entry in fields)
    assert len(named) == len(fields) - 2 - transports, "two settings of one name"
    for name, (config, entry) in settings().items():
        assert entry.metadata["help"].endswith(".")
        assert name.isidentifier()
        assert name.startswith("transport_") == (config is TransportConfig)


def test_every_choice_that_a_setting_offers_is_accepted_and_explained() -> None:
    for name, (_, entry) in settings().items():
        for choice in entry.metadata.get("choices", ()):
            configure((), ("steps",), {name: choice}, head_of(name))
        assert entry.default in entry.metadata.get("choices", (entry.default,))


def head_of(name: str) -> str:
    return (owners(name) or (DEFAULT,))[0]


@pytest.mark.parametrize("name", settings())
def test_a_setting_reaches_its_field_and_no_other(name: str) -> None:
    config, entry = settings()[name]
    others = {
        "mixing": "feature", "tokens": "both", "optimiser": "adam", "norm": False,
        "self_attention": True, "transport_refine": "plan", "transport_source": "frozen",
        "transport_gradient": "autodiff", "validation": 0.25, "seed": 3,
        "experts": "apart", "experts_of": "v", "combine": "mean", "experts_positions": "none",
        "experts_mixing": "feature", "experts_norm": False, "experts_self_attention": True,
        "experts_swap": 0.5, "linear_dropout": 0.5, "positions": "learned",
        "centre": 0.5, "swap": 0.5, "front_door": "cross", "order_bias": True,
        "tune": "text,classifier",
        "inner": 32, "detach": False, "update": "fifo",
        "two_stream_inner": 32, "two_stream_detach": False, "short": "merge", "long": "merge",
        "modulate": False, "meet": False,
        "temporal_positions": "learned", "channels": 64,
        "vis4mer_channels": 64, "scales": "dilations",
    }  # fmt: skip
    value = others.get(name, entry.default / 2 if isinstance(entry.default, float) else None)
    value = 2 * entry.default if value is None else value
    assert value != entry.default
    head = head_of(name)
    model, train = configure(("ici",), ("steps",), {name: value}, head)
    transport = getattr(model, "transport", None)
    made = {type(one): one for one in (model, train, transport)}
    assert getattr(made[config], entry.name) == value
    plain_model, plain_train = configure(("ici",), ("steps",), {}, head)
    reset = {entry.name: entry.default}
    if config is TransportConfig:
        model = dataclasses.replace(model, transport=dataclasses.replace(model.transport, **reset))
    elif config is not TrainConfig:
        model = dataclasses.replace(model, **reset)
    else:
        train = dataclasses.replace(train, **reset)
    assert (model, train) == (plain_model, plain_train)


@pytest.mark.parametrize("name", ["transport_lambda", "transport.lambda", "transport-lambda"])
def test_the_parts_of_a_name_may_be_joined_three_ways(name: str) -> None:
    model, _ = configure((), ("steps",), {name: 3.0})
    assert model.transport.lam == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("batchsize", "did you mean 'batch_size'"),
        ("epoch", "did you mean 'epochs'"),
        ("transport.lam", "did you mean 'transport_lambda'"),
        ("xyz", "known: relations, mixing"),
        ("order", "did you mean 'order_bias'"),
    ],
)
def test_an_unknown_setting_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no setting is called '{name}'; {hint}"):
        configure((), ("steps",), {name: 1})


# Heads.


def test_every_head_has_a_name_of_its_own_and_a_line() -> None:
    assert DEFAULT == "pcmci"
    assert len({entry.config for entry in HEADS.values()}) == len(HEADS)
    for entry in HEADS.values():
        assert entry.about
        assert "\n" not in entry.about


@pytest.mark.parametrize("head", HEADS)
def test_a_setting_that_a_head_does_not_have_is_refused_by_name(head: str) -> None:
    for name in settings():
        owning = owners(name)
        if owning and head not in owning:
            with pytest.raises(UsageError, match=f"{name} is a setting of .* and not of {head}"):
                configure((), (), {name: settings()[name][1].default}, head)


def test_a_shared_setting_is_meant_for_the_head_that_is_trained() -> None:
    assert {"pcmci", "linear", "mlp"} <= set(owners("dropout"))
    for head in ("pcmci", "linear", "mlp"):
        model, _ = configure((), (), {"dropout": 0.25}, head)
        assert model.dropout == 0.25  # type: ignore[attr-defined]


def test_a_heads_own_spelling_counts_first() -> None:
    for values in ({"dropout": 0.25, "mlp.dropout": 0.5}, {"mlp.dropout": 0.5, "dropout": 0.25}):
        model, _ = configure((), (), values, "mlp")
        assert model.dropout == 0.5  # type: ignore[attr-defined]


def test_flags_say_whose_a_setting_is_where_several_have_it() -> None:
    spelled = flags()
    assert spelled["mlp_dropout"] == "mlp.dropout"
    assert spelled["experts_dropout"] == "experts.dropout"
    assert spelled["experts_of"] == "experts-of"
    assert spelled["hidden"] == "hidden"
    assert spelled["transport_lambda"] == "transport-lambda"
    assert len(set(spelled.values())) == len(settings())


def test_an_unknown_head_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"--head 'mpl': there are .*; did you mean 'mlp'"):
        configure((), (), {}, "mpl")


def test_only_the_papers_head_has_stages() -> None:
    assert check_stages("mlp", None) == ()
    assert check_stages(DEFAULT, None) == STAGES
    with pytest.raises(UsageError, match="--order ich: only the head pcmci has stages, not mlp"):
        check_stages("mlp", "ich")


@pytest.mark.parametrize("head", HEADS)
def test_settings_are_read_back_from_their_record(head: str) -> None:
    changed = {
        name: entry.default / 2
        for name, (_, entry) in head_settings(head).items()
        if isinstance(entry.default, float)
    }
    model, _ = configure(("ici", "ich"), (), changed, head)
    record = json.loads(json.dumps(recorded(model)))
    assert HEADS[head].config.from_record(record) == model


def test_configure_takes_lists_and_leaves_defaults_to_the_classes() -> None:
    model, train = configure(["ich"], ["steps"], {})  # type: ignore[arg-type]
    assert model == ModelConfig(order=("ich",))
    assert train == TrainConfig(labels=("steps",))
    hash((model, train))  # frozen all through, and lists made tuples


@pytest.mark.parametrize("config", [c() for c in CONFIGS], ids=lambda c: type(c).__name__)
def test_configs_are_frozen(config: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 1)


# Thresholds and sizes.


@pytest.mark.parametrize(
    ("text", "taus"),
    [
        ("0.6", (0.6,)),
        ("0.3,0.6", (0.3, 0.6)),
        ("0.3:0.9:0.1", (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
        ("0:1:0.5", (0, 0.5, 1)),
        ("0.3:0.45:0.1", (0.3, 0.4)),
        ("0.6:0.6:0.1", (0.6,)),
    ],
)
def test_thresholds_are_listed_or_stepped_through(text: str, taus: tuple[float, ...]) -> None:
    assert parse_taus(text) == taus


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 50))
def test_a_range_of_thresholds_takes_both_ends(first: int, last: int, step: int) -> None:
    text = f"{first / 100}:{last / 100}:{step / 100}"
    if last < first:
        with pytest.raises(UsageError, match=r"use 0\.6"):
            parse_taus(text)
    else:
        expected = [hundredth / 100 for hundredth in range(first, last + 1, step)]
        assert parse_taus(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "a", "0.6;0.7", "1.1", "-0.1", "nan", "0:1", "0:1:0", "0:1:-0.1", "0:1:1e-9", "0:2:0.1",
     "0:inf:0.1", "nan:1:0.1", "1e400:1:0.1"],
)  # fmt: skip
def test_thresholds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_taus(text)
    assert str(caught.value).startswith(f"--tau {text!r}: use 0.6, ")


@pytest.mark.parametrize(
    ("text", "size"),
    [("123", 123), ("500M", 500 * 2**20), ("2G", 2**31), ("1.5k", 1536), ("1T", 2**40)],
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "G", "2X", "-1G", "0", "lots", "nan", "inf", "2 GB", "0.5"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_memory(text)
    assert str(caught.value) == f"--memory {text!r}: use a size as 500M or 2G"


def test_settings_and_scores_need_no_torch() -> None:
    """--help, and rescoring saved predictions, are quick."""
    modules = (
        "catalogue", "config", "scoring.metrics", "scoring.predictions", "scoring.scores",
        "training.splits",
    )  # fmt: skip
    imports = ", ".join(f"pcmci.heads.{name}" for name in modules)
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
