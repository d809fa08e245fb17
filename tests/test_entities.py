"""The nouns of labels: which they are, how a store keeps them, and who reads them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import write_video
from made_up import made_up_store
from synthetic import names, small_store, small_table

from pcmci.cache.store import open_store
from pcmci.cache.upkeep.convert import convert
from pcmci.cache.upkeep.verify import verify
from pcmci.errors import UsageError
from pcmci.extract.datasets.entities import entities_in, entity_words, with_entities
from pcmci.heads.catalogue import configure
from pcmci.heads.training.fit import build_model
from pcmci.heads.training.run import load_run, train_heads

SMALL = {"decoder_heads": 4, "feedforward": 8, "queries": 3, "bank": 3, "inner": 8}


def test_a_list_holds_a_word_a_line(tmp_path):
    (tmp_path / "words.txt").write_text("# kitchen\nPan\n\n  egg\nfruit  salad\npan\n")
    assert entity_words(tmp_path / "words.txt") == ["pan", "egg", "fruit salad"]
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"empty\.txt: it holds no words; a noun a line"):
        entity_words(tmp_path / "empty.txt")


def test_entities_are_whole_words_of_the_texts_in_the_order_of_the_list():
    texts = ("Fry egg in pan", "cut fruit  salad", "stir pancakes")
    words = ["pancake", "salad", "fruit salad", "pan", "egg", "cup"]
    assert entities_in(texts, words) == ("salad", "fruit salad", "pan", "egg")


def test_a_list_of_which_no_label_speaks_is_refused():
    with pytest.raises(UsageError, match="no label's text holds oven or any other of its 1 words"):
        with_entities(names("activity", 2), None, ["oven"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """`small_store` with entities of its steps alone: its activities' texts hold none."""
    path = tmp_path_factory.mktemp("things") / "small.h5"
    steps = names("step", 5, entities=("bowl", "cup", "milk"))
    sizes = {"frames": 6, "width": 16, "video_width": 24}
    made_up_store(path, "small", names("activity", 3), steps, small_table(), **sizes)
    with open_store(path) as opened:
        yield opened


def test_a_store_keeps_them_beside_the_prompts(store, tmp_path):
    assert store.spec.format_version == 2
    assert store.entities("steps").shape == (3, 16)
    assert store.entities("activity") is None
    convert(store.path, tmp_path / "copy.zarr")
    with open_store(tmp_path / "copy.zarr") as copy:
        np.testing.assert_array_equal(copy.entities("steps"), store.entities("steps"))
        assert copy.content_digest == store.content_digest
    assert not list(verify(tmp_path / "copy.zarr"))
    with open_store(small_store(tmp_path / "old.h5")) as old:
        assert old.spec.format_version == 1
        assert old.entities("steps") is None
        with pytest.raises(Exception, match=r"other entities \(--entities\): the store has none"):
            old.check_spec(dataclasses.replace(old.spec, steps=store.spec.steps))


def test_the_stream_of_entities_reads_the_nouns_and_that_of_scenes_the_prompts(store):
    config, _ = configure((), ("steps",), SMALL, "two-stream")
    text, nouns = store.text("steps"), store.entities("steps")
    make = lambda nouns: build_model(config, text, 24, 0, "steps", nouns).eval()  # noqa: E731
    with torch.no_grad():
        model, other, without = make(nouns), make(np.flip(nouns, 1).copy()), make(None)
        for one in (model, other, without):
            for modulator in one.modulators:
                modulator.gate.fill_(1)  # it begins closed
        vlm, video = torch.randn(2, 6, 16), torch.randn(2, 6, 24)
        answer = model(vlm, video)
        assert not torch.allclose(answer, other(vlm, video), atol=1e-4)
        assert not torch.allclose(answer, without(vlm, video), atol=1e-4)
        model.modulators[0].gate.zero_()
        other.modulators[0].gate.zero_()
        torch.testing.assert_close(model(vlm, video), other(vlm, video))


def test_a_run_is_read_back_with_them(store, tmp_path):
    run = train_heads(store, out=tmp_path, head="two-stream", epochs=1, progress=False, **SMALL)
    assert run.heads["steps"]["entities"] == 3
    assert "entities" not in run.heads["activity"]
    rows = store.rows("test")
    vlm, video = (store.read(name, rows, view=0) for name in ("vlm", "video"))
    found = load_run(run.path).predict(vlm, video)["steps"]
    logits = run.predictions.labels["steps"].logits[run.predictions.splits == "test"]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-3, atol=1e-5)


def test_extraction_embeds_them_and_goes_on_with_them_alone(pcmci, tiny_encoders, tmp_path):
    for kind in ("boil egg", "pour tea"):
        (tmp_path / "films" / kind).mkdir(parents=True)
        write_video(tmp_path / "films" / kind / "a.mp4", frames=8, seed=len(kind))
    (tmp_path / "words.txt").write_text("tea\npan\negg\n")
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny_encoders.items()]

    def extract(*more):
        return pcmci("extract", "--dataset", "folder", "--videos", tmp_path / "films", "--frames",
                     8, "--out", tmp_path / "x.zarr", *flags, *more)  # fmt: skip

    words = ("--entities", tmp_path / "words.txt")
    assert extract(*words).code == 0
    assert extract(*words).code == 0
    with open_store(tmp_path / "x.zarr") as store:
        assert store.spec.activity.entities == ("tea", "egg")
        assert store.entities("activity").shape == (2, store.spec.vlm.width)
    answer = extract()
    assert answer.code == 2
    assert "other entities (--entities): the store has tea, egg" in answer.err
