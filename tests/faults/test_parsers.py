"""Whatever an annotation says: a data set, or one line that names the place. Nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcmci.errors import PcmciError, UsageError
from pcmci.extract.datasets import breakfast, charades, coin, folder
from pcmci.heads.config import STAGES, check_order, parse_order, parse_taus

THINGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["database", "class", "subset", "annotation", "segment",
                                       "label", "id", "duration", "a"]) | st.text(max_size=4),
                      inner, max_size=6),
    max_leaves=20,
)  # fmt: skip

ENTRY = {
    "class": "MakeTea", "recipe_type": 1, "subset": "training", "duration": 30.0,
    "annotation": [{"id": "1", "segment": [1.0, 5.0], "label": "pour"}],
}  # fmt: skip


def complains_in_a_line(parse) -> None:
    try:
        parse()
    except PcmciError as error:
        assert "\n" not in str(error)
        assert str(error)


@pytest.fixture
def films(tmp_path):
    place = tmp_path / "films"
    place.mkdir()
    for name in ("a.mp4", "P03_cam01_tea.avi"):
        (place / name).touch()
    return place


ALWAYS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ALWAYS
@given(THINGS)
def test_any_json_as_coin(films, content):
    path = films.parent / "COIN.json"
    path.write_text(json.dumps(content))
    complains_in_a_line(lambda: coin.parse(films, path))


@ALWAYS
@given(st.dictionaries(st.sampled_from(sorted(ENTRY)), THINGS), st.sampled_from(["a", "../a", ""]))
def test_any_entry_of_coin(films, changes, name):
    path = films.parent / "COIN.json"
    path.write_text(json.dumps({"database": {name: {**ENTRY, **changes}}}))
    complains_in_a_line(lambda: coin.parse(films, path))


@ALWAYS
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode(errors="replace")))
def test_any_bytes(films, content):
    home = films.parent
    for name, parse in (
        ("COIN.json", lambda path: coin.parse(films, path)),
        ("COIN.json.gz", lambda path: coin.parse(films, path)),
        ("labels.csv", lambda path: folder.parse(films, path)),
    ):
        (home / name).write_bytes(content)
        complains_in_a_line(lambda parse=parse, name=name: parse(home / name))
    place = home / "charades"
    place.mkdir(exist_ok=True)
    (place / "Charades_v1_classes.txt").write_bytes(b"c000 Holding some clothes\n")
    for name in ("Charades_v1_train.csv", "Charades_v1_test.csv"):
        (place / name).write_bytes(content)
    complains_in_a_line(lambda: charades.parse(films, place))
    place = home / "coarse" / "tea"
    place.mkdir(parents=True, exist_ok=True)
    (place / "P03_cam01_P03_tea.txt").write_bytes(content)
    complains_in_a_line(lambda: breakfast.parse(films, home / "coarse"))


CELLS = st.text(alphabet="ab,;\"'\n\r/.\\ é", max_size=6)


@ALWAYS
@given(st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=4))
def test_any_table_of_a_folder(films, rows):
    path = films.parent / "labels.csv"
    text = "video,split,activity,steps\n" + "\n".join(",".join(row) for row in rows)
    path.write_text(text, newline="")
    complains_in_a_line(lambda: folder.parse(films, path))


@settings(max_examples=300)
@given(st.text(alphabet="ichv, none;OCR\t", max_size=16))
def test_any_order(text):
    try:
        order = parse_order(text)
    except UsageError as error:
        assert repr(text)[1:-1] in str(error)
        return
    assert check_order(order) == order
    assert len(set(order)) == len(order)
    assert set(order) <= set(STAGES)


@settings(max_examples=300)
@given(st.text(alphabet="0123456789.:,-+e naif", max_size=14))
def test_any_tau(text):
    try:
        taus = parse_taus(text)
    except UsageError as error:
        assert repr(text) in str(error)
        return
    assert 0 < len(taus) <= 1000
    assert all(0 <= tau <= 1 for tau in taus)
