"""Image models of timm against timm's own forward and transform, and what their loader refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from conftest import TINY_VIT
from encoder_contract import check_company, check_cuda, check_rough, check_seed
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_video_encoder
from pcmci.extract.encoders.normalise import Normalise
from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.encoders.timm_source import SHORT, timm_source
from pcmci.extract.encoders.vit import VitEncoder

SIZE = 32
PRETRAINED: dict[str, Any] = TINY_VIT["pretrained_cfg"]
ARGS: dict[str, Any] = TINY_VIT["model_args"]
KINDS: dict[str, dict[str, Any]] = {
    "cls": {"architecture": "vit_tiny_patch16_224", "model_args": ARGS},
    "registers": {
        "architecture": "vit_small_patch14_reg4_dinov2",
        "model_args": ARGS | {"init_values": 0.5},
    },
    "mean of patches": {"architecture": "vit_small_patch16_dinov3", "model_args": ARGS},
    "attention pooling": {"architecture": "vit_base_patch16_siglip_224", "model_args": ARGS},
}


def config_of(kind: str, **pretrained: Any) -> dict[str, Any]:
    return {**KINDS[kind], "pretrained_cfg": PRETRAINED | pretrained}


def reference(kind: str, classes: int = 0) -> Any:
    """timm's model, every parameter random: zero biases would hide a mistake."""
    raw = KINDS[kind]
    model = timm.create_model(raw["architecture"], num_classes=classes, **raw["model_args"])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(config_of("cls")))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a repository of timm on the hub: config and weights, classifier included."""
    model = reference("cls", classes=5)
    model.pretrained_cfg = PRETRAINED | {"architecture": "vit_tiny_patch16_224", "tag": ""}
    save_for_hf(model, tmp_path / "hub", model_args=ARGS, safe_serialization=True)
    return tmp_path / "hub"


def loaded(name: Path | str, weights: Path | str, **options: Any) -> VitEncoder:
    encoder = load_video_encoder(str(name), str(weights), device="cpu", **options)
    assert isinstance(encoder, VitEncoder)
    return encoder


def random_frames(count: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_what_timms_own_classifier_would_read(tmp_path: Path, kind: str) -> None:
    model = reference(kind)
    (tmp_path / "tiny.json").write_text(json.dumps(config_of(kind)))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    encoder = loaded(tmp_path / "tiny.json", tmp_path / "weights.safetensors", frames=6)
    assert (encoder.clip_frames, encoder.clip_tokens, encoder.spec.tokens) == (1, 1, 6)
    frames = random_frames(3)
    with torch.no_grad():
        expected = model(Normalise(encoder.spec.preprocessing, frames=1)(frames))
    found = encoder.encode(frames)
    assert found.shape == (3, 1, encoder.spec.width) == (3, 1, 24)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "ways",
    [
        {},
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        {"crop_mode": "squash"},
        {"crop_mode": "squash", "crop_pct": 1.0},
    ],
)
def test_frames_are_prepared_as_timm_would(tmp_path: Path, ways: dict[str, Any]) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(config_of("cls", **ways)))
    encoder = loaded(tmp_path / "tiny.json", "random:0")
    data = timm.data.resolve_data_config(pretrained_cfg=PRETRAINED | ways)
    transform = timm.data.create_transform(**data, is_training=False)
    rng = np.random.default_rng(0)
    for shape in [(240, 320), (320, 240), (32, 32), (20, 27), (33, 517), (97, 96)]:
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        small = torch.from_numpy(encoder.prepare(frame))[None, None]
        pixels = Normalise(encoder.spec.preprocessing, frames=1)(small)[0]
        torch.testing.assert_close(pixels, transform(Image.fromarray(frame)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SHORT.values())
def test_what_timm_knows_of_its_weights_is_taken(name: str) -> None:
    data = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    source = timm_source(f"timm:{name}")
    found = source.preprocessing()
    assert (found.mean, found.std, found.size) == (
        data["mean"], data["std"], data["input_size"][1],
    )  # fmt: skip
    assert found.resize == int(found.size / data["crop_pct"])
    assert source.own == f"timm/{name}"


def test_a_name_without_a_tag_tells_which_it_stands_for() -> None:
    assert timm_source("timm:vit_base_patch16_224").name == f"timm:{SHORT['vit-base']}"
    assert timm_source("vit-base").name == "vit-base"
    assert timm_source("vit-base").own == f"timm/{SHORT['vit-base']}"
    assert timm_source("dinov2-base@224").name == "dinov2-base@224"
    dino = timm_source("timm:vit_base_patch14_dinov2@224")
    assert dino.name == "timm:vit_base_patch14_dinov2.lvd142m@224"
    assert (dino.preprocessing().size, dino.preprocessing().resize) == (224, 224)


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "xcit_nano_12_p8_224"])
def test_what_is_no_vit_runs_too(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()  # with its classifier, as checkpoints have it
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = loaded(f"timm:{name}", tmp_path / "weights.pth")
    frames = random_frames(1, size=encoder.spec.preprocessing.size)
    model.reset_classifier(0)
    with torch.no_grad():
        expected = model(Normalise(encoder.spec.preprocessing, frames=1)(frames))
    torch.testing.assert_close(encoder.encode(frames)[:, 0], expected, rtol=0, atol=1e-5)
    assert expected.shape == (1, encoder.spec.width)


def test_a_folder_a_file_and_a_hub_id_are_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(repository: str, filename: str) -> str:
        assert repository == "somebody/vit"
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    state = load_file(folder / "model.safetensors")
    torch.save({"model": state, "epoch": 3}, tmp_path / "a.pth")
    config = folder / "config.json"
    encoders = [
        loaded(config, folder),
        loaded(config, tmp_path / "a.pth"),
        loaded(config, "somebody/vit"),
        loaded("timm:hf-hub:somebody/vit", "own"),
        loaded("timm:hf-hub:somebody/vit", "auto"),
    ]
    assert len({encoder.spec.sha256 for encoder in encoders}) == 1
    assert encoders[3].spec.name == "timm:hf-hub:somebody/vit"
    assert encoders[4].spec.weights == "somebody/vit"
    frames = random_frames(2)
    with torch.no_grad():
        pixels = Normalise(encoders[0].spec.preprocessing, frames=1)(frames)
        expected = reference("cls", classes=5).forward_features(pixels)[:, 0]
    torch.testing.assert_close(encoders[0].encode(frames)[:, 0], expected, rtol=0, atol=1e-5)

    def no_network(repository: str, filename: str) -> str:
        raise OSError("name not known\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    for name, weights in (("vit-base", "auto"), ("timm:test_vit", "own"), (config, "a/b")):
        with pytest.raises(WeightsError, match=r"could not be downloaded .*give a folder") as said:
            loaded(name, weights)
        assert "\n" not in str(said.value)
    with pytest.raises(WeightsError, match=r"the config of 'a/b' could not be .*config\.json"):
        loaded("timm:hf-hub:a/b", "own")


def test_another_size_stretches_the_positions_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda repository, filename: str(folder / filename)
    )
    encoder = loaded("timm:hf-hub:somebody/vit@48", "own")
    assert encoder.spec.name.endswith("@48")
    assert (encoder.spec.preprocessing.size, encoder.spec.preprocessing.resize) == (48, 53)
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=True, num_classes=0, **(ARGS | {"img_size": 48}),
        pretrained_cfg=PRETRAINED | {"file": str(folder / "model.safetensors")},
    ).eval()  # fmt: skip
    frames = random_frames(2, size=48)
    with torch.no_grad():
        expected = model(Normalise(encoder.spec.preprocessing, frames=1)(frames))
    torch.testing.assert_close(encoder.encode(frames)[:, 0], expected, rtol=0, atol=1e-5)
    assert encoder.spec.sha256 != loaded(folder / "config.json", folder).spec.sha256
    with pytest.raises(WeightsError, match="50 pixels are no multiple of its patches of 8"):
        loaded("timm:hf-hub:somebody/vit@50", "own")


def test_checkpoints_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    config, state = folder / "config.json", load_file(folder / "model.safetensors")

    def refused(changed: dict[str, torch.Tensor], match: str) -> None:
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(WeightsError, match=match):
            loaded(config, tmp_path / "changed.safetensors")

    without = {k: v for k, v in state.items() if k != "blocks.1.mlp.fc2.bias"}
    refused(without, r"does not fit .*blocks\.1\.mlp\.fc2\.bias is missing")
    refused(state | {"extra": torch.zeros(1)}, "extra has no place")
    # timm would stretch both without a word
    longer = state | {"pos_embed": torch.zeros(1, 26, 24)}
    refused(longer, r"pos_embed is \[1, 26, 24\], not \[1, 17, 24\]")
    coarser = state | {"patch_embed.proj.weight": torch.zeros(24, 3, 16, 16)}
    refused(coarser, r"proj\.weight is \[24, 3, 16, 16\], not \[24, 3, 8, 8\]")
    refused({"a.weight": torch.zeros(1)}, r"cls_token is missing, .* and \d+ more")
    refused({"mask_token": torch.zeros(1)}, r"cls_token is missing, .* and \d+ more")


def test_weights_that_want_other_images_are_refused(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "other.json"
    config.write_text(json.dumps(config_of("cls", mean=[0.485, 0.456, 0.406])))
    with pytest.raises(WeightsError, match=r"has mean \[0\.5, 0\.4, 0\.3\], .*needs \[0\.485"):
        loaded(config, folder)
    config.write_text(json.dumps(config_of("registers")))
    with pytest.raises(WeightsError, match=r"has architecture vit_tiny_patch16_224, .*reg4_dinov2"):
        loaded(config, folder)
    with pytest.raises(
        WeightsError, match=r"has architecture vit_tiny_patch16_224, vit-base needs"
    ):
        loaded("vit-base", folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"architecture": "vit_nothing"}, "timm has no architecture 'vit_nothing'"),
        ({"model_args": {"wings": 2}}, "cannot be built: .*wings"),
        ({"pretrained_cfg": {"mean": [0, 0, 0]}}, "has no input_size in its pretrained_cfg"),
        ({"pretrained_cfg": PRETRAINED | {"crop_mode": "border"}}, "resizes by 'border'"),
        ({"pretrained_cfg": PRETRAINED | {"interpolation": "hamming"}}, "'hamming'"),
        ({"pretrained_cfg": PRETRAINED | {"input_size": [3, 32, 64]}}, "images of 3 x 32 x 64"),
    ],
)
def test_impossible_configs_are_refused(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(config_of("cls") | change))
    with pytest.raises(WeightsError, match=match):
        loaded(path, "random:0")


def test_names_and_weights_that_are_not_there(config: Path) -> None:
    for name, match in (
        ("vit-bas", "'vit-bas': did you mean vit-base"),
        ("timm:vit_base_patch61_224", "no model .*did you mean vit_base_patch"),
        ("timm:vit_base_patch16_224.nothing", "no weights 'nothing' of .*augreg2_in21k_ft_in1k"),
        ("timm:test_vit@small", "'small' is no size"),
        ("timm:hf-hub:nothing", "'nothing' is no hub id"),
        ("timm", "no video encoder is called 'timm'.*; there are vit-tiny"),
    ):
        with pytest.raises(WeightsError, match=match):
            loaded(name, "random:0")
    with pytest.raises(WeightsError, match=r"tiny\.json brings no weights"):
        loaded(config, "own")
    with pytest.raises(WeightsError, match="are neither a checkpoint"):
        loaded(config, "nothing")
    with pytest.raises(UsageError, match="a multiple of 1"):
        loaded(config, "random:0", frames=0)
    with pytest.raises(ValueError, match="expected uint8"):
        loaded(config, "random:0").encode(random_frames(1, size=16))


def test_a_seed_gives_the_same_bits_and_disturbs_nobody(config: Path) -> None:
    check_seed(lambda weights: loaded(config, weights))


def test_the_company_of_a_frame_does_not_change_it(config: Path) -> None:
    """The bits for a fixed batch shape, for resuming relies on them; else to float tolerance."""
    encoder = loaded(config, "random:0")
    check_company(encoder, random_frames(16), random_frames(16, seed=1), place=11, row=2)


def test_bf16_is_close_and_comes_out_as_float32(config: Path) -> None:
    frames = random_frames(4)
    exact = loaded(config, "random:0").encode(frames)
    rough = loaded(config, "random:0", precision="bf16").encode(frames)
    check_rough(rough, exact)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_equals_the_cpu(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(config_of(kind)))
    frames = random_frames(5)
    expected = loaded(path, "random:0").encode(frames)

    def load(precision: str) -> Encoder:
        return load_video_encoder(str(path), "random:0", device="cuda", precision=precision)

    check_cuda(load, frames, expected)


@pytest.mark.slow
def test_the_full_size_model_takes_a_frame_as_timm_does() -> None:
    encoder = loaded("vit-base", "random:0")
    frames = random_frames(1, size=224)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(SHORT["vit-base"], num_classes=0).eval()
    with torch.no_grad():
        expected = model(Normalise(encoder.spec.preprocessing, frames=1)(frames))
    assert (encoder.spec.width, encoder.spec.parameters) == (768, 85_798_656)
    torch.testing.assert_close(encoder.encode(frames)[:, 0], expected, rtol=0, atol=1e-5)
