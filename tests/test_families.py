"""Which family a name belongs to, what is drawn for trials, and what the spec says of libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pcmci.cache.schema import Preprocessing
from pcmci.errors import WeightsError
from pcmci.extract.config import AUTO, SHIPPED
from pcmci.extract.encoders import load_video_encoder, load_vlm
from pcmci.extract.encoders.cards import CARDS, card_of, default_weights, labels_seen
from pcmci.extract.encoders.clip import build
from pcmci.extract.encoders.families import (
    DEFAULT_SIZES,
    VIDEO_FAMILIES,
    VLM_FAMILIES,
    full_name,
    video_module,
    vlm_module,
)
from pcmci.extract.encoders.preprocess import resize_and_crop
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.timesformer import TimeSformer
from pcmci.extract.encoders.timesformer_checkpoint import unfolded
from pcmci.extract.encoders.timesformer_config import CONFIGS
from pcmci.extract.encoders.timm_source import timm_source
from pcmci.extract.pair import library_versions


def test_every_family_has_a_loader_and_every_size_and_card_a_family() -> None:
    for module in {*VLM_FAMILIES.values(), *VIDEO_FAMILIES.values()}:
        assert callable(import_module(module).load)
    for family, size in DEFAULT_SIZES.items():
        assert full_name(family) == size
        kinds = {card.kind for card in CARDS if card.name == size}
        assert kinds == {"video" if family in VIDEO_FAMILIES else "vlm"}, size
    for card in CARDS:
        assert card.kind in ("vlm", "video")
        assert (vlm_module if card.kind == "vlm" else video_module)(card.name)
        assert full_name(card.name) == card.name
        assert default_weights(card.kind, card.name, "random:0") == "random:0"
    assert len({(card.kind, card.name, card.weights) for card in CARDS}) == len(CARDS)


def test_what_a_card_says_of_timms_weights_timm_says_too() -> None:
    for card in CARDS:
        tagged = card.weights.removeprefix("timm/")
        if tagged == card.weights:
            continue
        known = timm.get_pretrained_cfg(tagged)
        assert known.license.casefold().removesuffix("-license") == card.licence.casefold()
        assert known.hf_hub_id == card.weights
        source = timm_source(card.name)
        assert (source.name, source.own) == (card.name, card.weights)
        args = {"img_size": source.size} if source.size else {}
        with torch.device("meta"):
            model = timm.create_model(source.architecture, num_classes=0, **args)
            images = torch.empty(1, 3, *[source.preprocessing().size] * 2)
        assert sum(tensor.numel() for tensor in model.parameters()) == card.parameters
        assert gigaflops(model.eval().requires_grad_(False), images) == card.gflops


def gigaflops(call: Callable[..., Any], *inputs: torch.Tensor) -> float:
    """To a decimal place; attention as products of matrices, for what is fused is not counted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(*inputs)
    torch.backends.mha.set_fastpath_enabled(fast)
    return round(counter.get_total_flops() / 1e9, 1)


def test_what_a_card_says_of_timesformer_is_so() -> None:
    for name, config in CONFIGS.items():
        card = card_of("video", name)
        if card is None:
            assert name == "timesformer-tiny"
            continue
        with torch.device("meta"):
            model = TimeSformer(config).eval().requires_grad_(False)
            images = torch.empty(config.num_frames, 3, *[config.image_size] * 2)
        state = unfolded(model.state_dict())
        assert sum(tensor.numel() for tensor in state.values()) == card.parameters
        assert config.num_frames == card.clip_frames
        assert gigaflops(model, images) / config.num_frames == pytest.approx(card.gflops, abs=0.06)


def test_the_command_has_a_line_a_model(pcmci: Any) -> None:
    lines = pcmci("encoders").out.splitlines()
    for card in CARDS:
        cells = [line for line in lines if f" {card.name} " in line]
        begin = card.weights[:40]  # a long one is folded
        assert any(begin in line and card.licence in line for line in cells), card.name
    found = pcmci("encoders", "--json").json
    assert [one["name"] for one in found["encoders"]] == [card.name for card in CARDS]
    assert found["default_sizes"] == DEFAULT_SIZES


def test_what_a_card_says_of_open_clips_weights_open_clip_says_too() -> None:
    for card in CARDS:
        of_open_clip = vlm_module(card.name) == VLM_FAMILIES["open_clip"]
        if card.kind == "video" or card.name == SHIPPED or not of_open_clip:
            continue
        assert open_clip.get_pretrained_cfg(card.name, card.weights)
        config = open_clip.get_model_config(card.name)
        with torch.device("meta"):
            model = build(card.name, config, 0).eval().requires_grad_(False)
            images = torch.empty(1, 3, *[config["vision_cfg"]["image_size"]] * 2)
        assert sum(tensor.numel() for tensor in model.parameters()) == card.parameters
        assert gigaflops(model.encode_image, images) == card.gflops


def test_a_bare_name_is_its_familys_default_size() -> None:
    assert full_name("timesformer") == "timesformer-base"
    assert full_name("timesformer-hr") == "timesformer-hr"
    assert full_name("dinov2@224") == "dinov2-base@224"
    assert full_name("timm:vit_base_patch16_224@384") == "timm:vit_base_patch16_224@384"


def test_a_name_of_no_family_gets_the_families() -> None:
    with pytest.raises(WeightsError, match="'timesfomer-base': did you mean timesformer") as said:
        load_video_encoder("timesfomer-base", "random:0")
    assert all(family in str(said.value) for family in VIDEO_FAMILIES)
    with pytest.raises(WeightsError, match="there are timesformer-base, timesformer-hr"):
        load_video_encoder("timesformer-huge", "random:0")
    with pytest.raises(WeightsError, match="open_clip has no model 'blap'"):
        load_vlm("blap", "random:0")


def test_a_config_says_its_family(tmp_path: Path) -> None:
    path = tmp_path / "a-b.json"
    for raw, video, vlm in (
        ({}, "timesformer", "open_clip"),
        ({"model_type": "timesformer"}, "timesformer", None),
        ({"model_type": "other"}, None, None),
    ):
        path.write_text(json.dumps(raw))
        for module, families, family in (
            (video_module, VIDEO_FAMILIES, video),
            (vlm_module, VLM_FAMILIES, vlm),
        ):
            if family:
                assert module(str(path)) == families[family]
            else:
                with pytest.raises(WeightsError, match="the families are") as said:
                    module(str(path))
                assert raw["model_type"] in str(said.value)


def test_weights_that_nobody_named_are_the_cards() -> None:
    card = card_of("video", "timesformer-base")
    assert card is not None
    assert default_weights("video", "timesformer-base", AUTO) == card.weights
    assert default_weights("vlm", "ViT-L-14", AUTO) == "openai"
    with pytest.raises(WeightsError, match="which weights of timesformer-tiny"):
        load_video_encoder("timesformer-tiny")


def test_files_that_saw_a_benchmarks_labels_are_told_by_name() -> None:
    assert labels_seen("facebook/timesformer-base-finetuned-k400") == ()
    for card in CARDS:
        assert set(card.labels_seen) <= {"breakfast", "coin", "charades"}
        if card.labels_seen:
            assert labels_seen(f"somewhere/{Path(card.weights).name}") == card.labels_seen


def test_libraries_of_an_encoder_join_those_of_all() -> None:
    base = library_versions()
    assert "transformers" not in base
    assert library_versions(("transformers", "torch", "none-such")) == {
        **base,
        "transformers": version("transformers"),
    }


def test_random_weights_have_the_sizes_of_trained_ones() -> None:
    shapes = {
        "a.A_log": (6, 4), "bn.running_mean": (5,), "bn.running_var": (5,), "bn.weight": (5,),
        "bn.num_batches_tracked": (), "fc.bias": (3,), "fc.weight": (30, 50), "pos_embed": (9, 40),
        "dt_proj.bias": (7,),
    }  # fmt: skip
    expected = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    rows = lambda shape, _: torch.arange(1.0, shape[1] + 1).log().expand(shape)  # noqa: E731
    drawn = lambda shape, generator: torch.rand(shape, generator=generator)  # noqa: E731
    found = random_state(expected, 0, {"A_log": rows, "dt_proj.bias": drawn})
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == shapes
    assert torch.equal(found["a.A_log"][2].exp().round(), torch.arange(1.0, 5.0))
    assert found["bn.running_mean"].eq(0).all()
    assert found["bn.running_var"].eq(1).all()
    assert found["bn.num_batches_tracked"].dtype == torch.int64
    assert found["fc.bias"].eq(0).all()
    assert found["dt_proj.bias"].gt(0).any()
    assert float(found["fc.weight"].std()) == pytest.approx(50**-0.5, rel=0.1)
    assert float(found["pos_embed"].std()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (32, 32), (20, 27), (33, 517)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squashing_keeps_every_part_of_the_frame(
    shape: tuple[int, int], interpolation: str
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    squash = Preprocessing(32, 32, interpolation, zeros, ones, "squash")
    found = resize_and_crop(frame, squash)
    way = Image.Resampling[interpolation.upper()]
    assert np.array_equal(found, np.array(Image.fromarray(frame).resize((32, 32), way)))
    half = frame.copy()
    half[:, : shape[1] // 8] = 0  # an edge that a crop of a wide frame would not see
    half[: shape[0] // 8] = 0
    assert (resize_and_crop(half, squash)[:3] != found[:3]).any()
    assert (resize_and_crop(half, squash)[:, :3] != found[:, :3]).any()


def test_naming_families_and_cards_loads_no_torch() -> None:
    program = (
        "import sys, pcmci.extract.encoders.families, pcmci.extract.encoders.cards;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
