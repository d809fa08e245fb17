"""What stores and runs made before are called: another name would make all of them anew."""

from types import SimpleNamespace

import numpy as np
import pytest

from pcmci.cache.schema import EncoderSpec, LabelSet, Preprocessing, Sampling, StoreSpec
from pcmci.heads.catalogue import configure
from pcmci.heads.training.recipe import Recipe, model_config

PIXELS = Preprocessing(256, 224, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SPEC = StoreSpec(
    dataset="breakfast",
    activity=LabelSet(("tea", "milk"), ("making tea", "making milk"), "a video of {}"),
    steps=LabelSet(("pour",), ("pour water",), "a video of {}"),
    sampling=Sampling(16, 2),
    vlm=EncoderSpec("ViT-B-16", "openai", "a" * 64, 16, 512, PIXELS, 149620737),
    video=EncoderSpec("timesformer-base", "random:0", "b" * 64, 16, 768, PIXELS, 121258752),
    precision="fp32",
    libraries={"av": "17.0.0", "torch": "2.14.1"},
    videos_sha256="c" * 64,
)


class Made(SimpleNamespace):
    """What a key is made of, without a file."""

    __hash__ = object.__hash__


STORE = Made(
    spec=SPEC,
    content_digest="d" * 64,
    splits=("train",) * 20,
    groups=tuple(f"video{k}" for k in range(20)),
    activity=np.arange(20) // 10,
)


def recipe(order, **values):
    return Recipe(*configure(order, ("activity", "steps"), values), "fp32", "cpu")


def test_a_stores_fingerprint():
    expected = "784957dee07989d1df6b2c62ed69c74688291290b4864ee54d8e1f693ed91573"
    assert SPEC.fingerprint == expected
    assert StoreSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(
    ("made", "key", "folder"),
    [
        (
            recipe(()),
            "803637be41ecb4c8371e1cb5c5117200cfb1ee2a524b5054a15a4bf1743c3812",
            "breakfast_activity+steps_none_seed0_803637be",
        ),
        (
            recipe(("ich", "ici", "ivc"), seed=3, transport_lambda=0.5, tokens="both"),
            "8da62f7eb1b715f2d91e22df9a2359867a7952b27d4bed29f2adb852773312ca",
            "breakfast_activity+steps_ich-ici-ivc_seed3_8da62f7e",
        ),
    ],
)
def test_a_runs_key_and_folder(made, key, folder):
    assert made.key(STORE) == key
    assert made.folder_name(STORE) == folder


def test_a_run_whose_validation_split_is_another_now_has_another_key():
    """Two videos an activity: rounding a tenth of each alone left none to validate with."""
    few = Made(**{**vars(STORE), "activity": np.arange(20) // 2})
    carved, whole = recipe((), validation=0.1), recipe((), validation=0.0)
    assert carved.key(few) != carved.key(STORE)
    assert whole.key(few) == whole.key(STORE)


def test_a_run_made_before_there_were_heads_is_read():
    """Its config.json names no head, and has all settings of that time."""
    made = recipe(("ich",), relations=4)
    assert model_config({"model": made._chosen["model"]}) == made.model
