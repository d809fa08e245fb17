"""The contract between the phases, without a file."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_contract import make_spec, make_table

from pcmci.cache.schema import FORMAT_VERSION, LabelSet, Sampling, StoreSpec, VideoTable
from pcmci.errors import StoreError


@pytest.fixture
def spec() -> StoreSpec:
    return make_spec(make_table(5))


def changed(spec: StoreSpec, key: str, value: object) -> StoreSpec:
    """The spec with one field replaced, `vlm.preprocessing.size` say."""
    first, _, rest = key.partition(".")
    return dataclasses.replace(
        spec, **{first: changed(getattr(spec, first), rest, value) if rest else value}
    )


CHANGES = [
    ("dataset", "coin"),
    ("activity", None),
    ("steps.names", ("a", "b", "d")),
    ("steps.template", "{}"),
    ("steps.background", ()),
    ("steps.unlabelled_last", True),
    ("steps.entities", ("pan", "egg")),
    ("sampling.frames", 8),
    ("vlm.name", "resnet"),
    ("vlm.sha256", "00" * 32),
    ("video.width", 6),
    ("video.preprocessing.mean", (0.5, 0.5, 0.4)),
    ("vlm.preprocessing.resize_mode", "squash"),
    ("precision", "bfloat16"),
    ("libraries", {"torch": "2", "av": "12"}),
    ("videos_sha256", "00" * 32),
]


def test_json_there_and_back(spec):
    for kept in (spec, changed(spec, "activity", None), changed(spec, "steps", None)):
        again = StoreSpec.from_json(kept.to_json())
        assert again == kept
        assert again.fingerprint == kept.fingerprint
        assert kept.differences(again) == []


def test_a_spec_without_what_is_new_has_the_text_of_the_first_format(spec):
    """Computed by the program before format 2: journals and cached plans go by it."""
    first = "281a2822c358bd144aff083b0e5978e1cb8cff7e4f04760b73a9d04070bfa98e"
    assert spec.fingerprint == first
    assert spec.format_version == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("vlm.preprocessing.resize_mode", "squash"), ("video.labels_seen", ("coin",))],
)
def test_what_is_new_asks_for_a_newer_program_and_comes_back(spec, key, value):
    newer = changed(spec, key, value)
    assert newer.format_version == json.loads(newer.to_json())["format_version"] == 2
    assert StoreSpec.from_json(newer.to_json()) == newer


def test_a_default_that_the_text_leaves_out_is_said(spec):
    (line,) = spec.differences(changed(spec, "vlm.preprocessing.resize_mode", "squash"))
    expected = "vlm.preprocessing.resize_mode: the store has 'shortest', asked for 'squash'"
    assert line == expected


def test_what_is_known_of_the_same_weights_is_no_difference(spec):
    moved = changed(spec, "video.weights", "elsewhere.pt")
    assert spec.differences(changed(moved, "video.labels_seen", ("coin",))) == []


def test_the_order_of_libraries_does_not_matter(spec):
    one = changed(spec, "libraries", {"a": "1", "b": "2"})
    other = changed(spec, "libraries", {"b": "2", "a": "1"})
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_every_field_changes_the_fingerprint_and_is_named(spec, key, value):
    other = changed(spec, key, value)
    assert other.fingerprint != spec.fingerprint
    lines = spec.differences(other)
    assert lines
    assert all(line.startswith(key) for line in lines)
    assert all("the store has" in line and "asked for" in line for line in lines)


def test_the_folder_of_a_config_is_no_difference(spec):
    def called(name):
        return changed(spec, "vlm", dataclasses.replace(spec.vlm, name=name))

    for one, other in (("x.json", "/a/b/x.json"), ("local-dir:a/m", "local-dir:/b/m")):
        assert called(one).differences(called(other)) == []
    for one, other in (("/a/x.json", "/a/y.json"), ("local-dir:a/m", "local-dir:a/n"),
                       ("org/model", "other/model")):  # fmt: skip
        assert called(one).differences(called(other))


def test_long_values_are_shortened(spec):
    names = tuple(f"label {i}" for i in range(1000))
    other = changed(spec, "steps", LabelSet(names, names, "{}"))
    assert max(map(len, spec.differences(other))) < 250


def test_label_sets_of_a_spec(spec):
    assert spec.label_sets == ("activity", "steps")
    assert spec.labels("steps").prompts[0] == "somebody does a"
    assert len(spec.labels("steps")) == 3
    with pytest.raises(StoreError, match="no label set is called 'verbs'; there are activity, st"):
        spec.labels("verbs")
    with pytest.raises(StoreError, match="'tiny' has no activity labels"):
        changed(spec, "activity", None).labels("activity")


def test_a_newer_format_is_refused(spec):
    newer = changed(spec, "format_version", FORMAT_VERSION + 1)
    with pytest.raises(StoreError, match=f"format {FORMAT_VERSION + 1}, .*upgrade pcmci"):
        StoreSpec.from_json(newer.to_json())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"format_version": 1}'])
def test_a_text_that_is_no_spec(text):
    with pytest.raises(StoreError, match=r"spec (cannot be read|is damaged)"):
        StoreSpec.from_json(text)


@pytest.mark.parametrize("key", ["dataset", "sampling", "vlm", "libraries"])
def test_a_spec_without_a_field(spec, key):
    raw = json.loads(spec.to_json())
    del raw[key]
    with pytest.raises(StoreError, match="is damaged"):
        StoreSpec.from_json(json.dumps(raw))
    raw["surprise"] = 1
    raw[key] = json.loads(spec.to_json())[key]
    with pytest.raises(StoreError, match=r"is damaged.*surprise"):
        StoreSpec.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("names", "texts", "template", "why"),
    [
        (("a", "b"), ("a",), "{}", "2 names but 1 texts"),
        (("a", "a"), ("a", "b"), "{}", "not unique"),
        (("a",), ("a",), "a video", "needs exactly one"),
        (("a",), ("a",), "{} {}", "needs exactly one"),
    ],
)
def test_label_sets_that_make_no_sense(names, texts, template, why):
    with pytest.raises(ValueError, match=why):
        LabelSet(names, texts, template)


def test_tables_that_make_no_sense():
    table = make_table(3)
    with pytest.raises(ValueError, match="3 ids but 2 splits"):
        dataclasses.replace(table, splits=("train", "test"))
    with pytest.raises(ValueError, match="3 ids but 4 steps"):
        dataclasses.replace(table, steps=np.zeros((4, 2), np.uint8))
    with pytest.raises(ValueError, match="not unique"):
        dataclasses.replace(table, ids=("a", "b", "a"))


def test_the_digest_is_of_the_values_alone():
    table = make_table(4)
    wide = dataclasses.replace(
        table, activity=table.activity.astype(np.int64), steps=np.asfortranarray(table.steps)
    )
    assert wide.digest() == table.digest()


@given(st.data())
def test_every_value_of_a_table_changes_its_digest(data):
    table = make_table(4)
    row = data.draw(st.integers(0, 3))
    name = data.draw(st.sampled_from(["ids", "splits", "sessions", "groups", "activity", "steps"]))
    column = getattr(table, name)
    if isinstance(column, tuple):
        text = data.draw(st.text(max_size=5).filter(lambda t: t not in column))
        column = (*column[:row], text, *column[row + 1 :])
    else:
        column = column.copy()
        column[row] += 1
    assert dataclasses.replace(table, **{name: column}).digest() != table.digest()


@given(st.tuples(*[st.text(max_size=3)] * 2), st.tuples(*[st.text(max_size=3)] * 2))
def test_ids_do_not_run_into_each_other(one, other):
    def digest(ids: tuple[str, ...]) -> str:
        same = ("", "")
        none, steps = np.full(2, -1, np.int32), np.zeros((2, 0), np.uint8)
        return VideoTable(ids, same, same, same, none, steps).digest()

    if len(set(one)) == len(set(other)) == 2:
        assert (digest(one) == digest(other)) == (one == other)


def test_sampling_is_uniform_by_default():
    assert Sampling() == Sampling(frames=16, views=1)
