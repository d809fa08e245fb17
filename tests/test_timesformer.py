"""TimeSformer against transformers' with the same weights, and what its loader refuses."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from encoder_contract import check_company, check_cuda, check_prepared, check_rough, check_seed
from huggingface_hub.utils import EntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_video_encoder
from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.encoders.timesformer import TimeSformerEncoder
from pcmci.extract.encoders.timesformer_config import CONFIGS, read_config

SIZE = 32


def reference(frames: int, classifier: bool = False) -> TimesformerModel:
    """transformers' model, every parameter random: zero biases would hide a mistake."""
    config = TimesformerConfig(
        image_size=SIZE,
        patch_size=8,
        num_frames=frames,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
    )
    model = TimesformerForVideoClassification(config) if classifier else TimesformerModel(config)
    generator = torch.Generator().manual_seed(frames)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def authors_layout(model: TimesformerModel) -> dict[str, torch.Tensor]:
    """The same weights under the names of the authors' checkpoints, module by module."""
    modules = {
        "patch_embed.proj": model.embeddings.patch_embeddings.projection,
        "norm": model.layernorm,
    }
    for i, layer in enumerate(model.encoder.layer):
        modules |= {
            f"blocks.{i}.norm1": layer.layernorm_before,
            f"blocks.{i}.attn.qkv": layer.attention.attention.qkv,
            f"blocks.{i}.attn.proj": layer.attention.output.dense,
            f"blocks.{i}.temporal_norm1": layer.temporal_layernorm,
            f"blocks.{i}.temporal_attn.qkv": layer.temporal_attention.attention.qkv,
            f"blocks.{i}.temporal_attn.proj": layer.temporal_attention.output.dense,
            f"blocks.{i}.temporal_fc": layer.temporal_dense,
            f"blocks.{i}.norm2": layer.layernorm_after,
            f"blocks.{i}.mlp.fc1": layer.intermediate.dense,
            f"blocks.{i}.mlp.fc2": layer.output.dense,
        }
    state = {
        "cls_token": model.embeddings.cls_token,
        "pos_embed": model.embeddings.position_embeddings,
        "time_embed": model.embeddings.time_embeddings,
        "head.weight": torch.zeros(5, 24),
        "head.bias": torch.zeros(5),
    }
    for name, module in modules.items():
        state |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    return {f"model.{name}": tensor.detach().clone() for name, tensor in state.items()}


def random_clips(clips: int, frames: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, frames, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def reference_tokens(model: TimesformerModel, clips: torch.Tensor) -> torch.Tensor:
    """transformers' tokens as [B, T, 1 + P, W]: its own are patch-major with time inside."""
    pixels = (clips.permute(0, 1, 4, 2, 3) / 255 - 0.45) / 0.225
    with torch.no_grad():
        tokens = model(pixel_values=pixels).last_hidden_state
    frames = clips.shape[1]
    patches = tokens[:, 1:].unflatten(1, (-1, frames)).transpose(1, 2)
    cls = tokens[:, None, :1].expand(-1, frames, -1, -1)
    return torch.cat((cls, patches), dim=2)


def loaded(config: Path, weights: Path | str, frames: int) -> TimeSformerEncoder:
    return load_video_encoder(str(config), str(weights), device="cpu", frames=frames)


@pytest.mark.parametrize("frames", [8, 16, 96])
def test_every_token_equals_that_of_transformers(tmp_path: Path, frames: int) -> None:
    model = reference(frames)
    model.save_pretrained(tmp_path)
    authors = tmp_path / "authors.pyth"
    torch.save({"epoch": 1, "model_state": authors_layout(model)}, authors)

    clips = random_clips(2, frames)
    expected = reference_tokens(model, clips)
    encoders = [
        loaded(tmp_path / "config.json", weights, 2 * frames) for weights in (tmp_path, authors)
    ]
    for encoder in encoders:
        torch.testing.assert_close(encoder.all_tokens(clips), expected, rtol=0, atol=1e-4)
        features = encoder.encode(clips)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, expected[:, :, 1:].mean(2), rtol=0, atol=1e-4)
    assert encoders[0].spec.sha256 == encoders[1].spec.sha256  # the same weights, another file
    assert (encoders[0].clip_frames, encoders[0].spec.tokens) == (frames, 2 * frames)


def test_frames_of_a_clip_see_each_other_and_no_other_clip() -> None:
    encoder = load_video_encoder("timesformer-tiny", "random:0", device="cpu")
    clips = random_clips(2, 8)
    changed = clips.clone()
    changed[0, 3] = 255 - changed[0, 3]
    before, after = encoder.encode(clips), encoder.encode(changed)
    assert torch.all((before[0] != after[0]).any(dim=1))
    assert torch.equal(before[1], after[1])


def test_a_classifier_of_transformers_is_left_out(tmp_path: Path) -> None:
    model = reference(8, classifier=True)
    model.save_pretrained(tmp_path)
    clips = random_clips(1, 8)
    tokens = loaded(tmp_path / "config.json", tmp_path, 8).all_tokens(clips)
    expected = reference_tokens(model.timesformer, clips)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-4)


def test_without_a_bias_in_the_attention(tmp_path: Path) -> None:
    model = reference(8)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"qkv_bias": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.0\.temporal_attn\.qkv\.bias has no place"):
        loaded(tmp_path / "config.json", tmp_path, 8)
    biases = [key for key in state if key.endswith("qkv.bias")]
    save_file({k: v for k, v in state.items() if k not in biases}, tmp_path / "model.safetensors")
    with torch.no_grad():
        for key in biases:
            model.get_parameter(key).zero_()
    clips = random_clips(1, 8)
    tokens = loaded(tmp_path / "config.json", tmp_path, 8).all_tokens(clips)
    torch.testing.assert_close(tokens, reference_tokens(model, clips), rtol=0, atol=1e-4)


def test_a_hub_id_is_fetched_and_an_older_one_has_no_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reference(8)
    model.save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")

    def fetch(repository: str, filename: str) -> str:
        assert repository == "somebody/timesformer"
        if filename == "model.safetensors":
            raise EntryNotFoundError("there is none")
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    config = tmp_path / "config.json"
    encoder = loaded(config, "somebody/timesformer", 8)
    assert encoder.spec.weights == "somebody/timesformer"
    assert encoder.spec.sha256 == loaded(config, tmp_path, 8).spec.sha256

    def no_network(repository: str, filename: str) -> str:
        raise OSError("name not known\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    with pytest.raises(WeightsError, match=r"could not be downloaded .*without a network, give"):
        loaded(config, "somebody/timesformer", 8)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = reference(8)
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    state = authors_layout(model)

    def refused(changed: dict[str, torch.Tensor], match: str) -> None:
        path = tmp_path / "changed.pyth"
        torch.save({"model_state": changed}, path)
        with pytest.raises(WeightsError, match=match):
            loaded(config, path, 8)

    without = {k: v for k, v in state.items() if k != "model.blocks.1.temporal_fc.bias"}
    refused(without, r"blocks\.1\.temporal_fc\.bias is missing")
    refused({**state, "model.extra": torch.zeros(1)}, r"extra has no place")
    longer = {**state, "model.time_embed": torch.zeros(1, 16, 24)}
    refused(longer, r"time_embed is \[1, 16, 24\], not \[1, 8, 24\]")

    other = json.loads(config.read_text()) | {"num_frames": 16}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(WeightsError, match=r"has num_frames 8, .*other\.json needs 16"):
        loaded(tmp_path / "other.json", tmp_path, 16)
    config.unlink()
    with pytest.raises(WeightsError, match=r"needs config\.json and model\.safetensors"):
        loaded(tmp_path / "other.json", tmp_path, 16)


@pytest.mark.parametrize(
    ("name", "image_size", "num_frames"),
    [("timesformer-base", 224, 8), ("timesformer-hr", 448, 16), ("timesformer-long", 224, 96)],
)
def test_the_authors_models_have_their_sizes(
    tmp_path: Path, name: str, image_size: int, num_frames: int
) -> None:
    published = TimesformerConfig(image_size=image_size, num_frames=num_frames)
    (tmp_path / "config.json").write_text(json.dumps(published.to_dict()))
    assert read_config(tmp_path / "config.json") == CONFIGS[name]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden_size": None}, "has no hidden_size"),
        ({"attention_type": "space_only"}, "attention_type is 'space_only'"),
        ({"image_size": [32, 32]}, r"image_size is \[32, 32\], no positive number"),
        ({"patch_size": 7}, "patch_size must divide image_size"),
        ({"num_attention_heads": 5}, "num_attention_heads hidden_size"),
    ],
)
def test_impossible_configs_are_refused(
    tmp_path: Path, change: dict[str, object], match: str
) -> None:
    raw = reference(8).config.to_dict() | change
    path = tmp_path / "model.json"
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    with pytest.raises(WeightsError, match=match):
        loaded(path, "random:0", 8)
    path.write_text("{")
    with pytest.raises(WeightsError, match=r"model\.json cannot be read"):
        loaded(path, "random:0", 8)


def test_names_and_numbers_that_cannot_be_used() -> None:
    with pytest.raises(WeightsError, match="did you mean timesformer-base"):
        load_video_encoder("timesformer-bas", "random:0")
    with pytest.raises(WeightsError, match="'nothing' of timesformer-tiny are neither"):
        load_video_encoder("timesformer-tiny", "nothing")
    with pytest.raises(WeightsError, match=r"there is no checkpoint nothing\.pyth"):
        load_video_encoder("timesformer-tiny", "nothing.pyth")
    with pytest.raises(UsageError, match="a multiple of 8, such as 16 or 24"):
        load_video_encoder("timesformer-tiny", "random:0", frames=20)
    with pytest.raises(UsageError, match="a multiple of 96, such as 96 or 192"):
        load_video_encoder("timesformer-long", "random:0", frames=16)
    encoder = load_video_encoder("timesformer-tiny", "random:0", device="cpu")
    with pytest.raises(ValueError, match="expected uint8"):
        encoder.encode(random_clips(2, 1))  # one frame would be broadcast over the clip's time


def test_a_seed_gives_the_same_bits_and_disturbs_nobody() -> None:
    check_seed(lambda weights: load_video_encoder("timesformer-tiny", weights, device="cpu"))


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (32, 32), (20, 27), (33, 517)])
def test_frames_are_prepared_as_torchvision_would(shape: tuple[int, int]) -> None:
    encoder = load_video_encoder("timesformer-tiny", "random:0", device="cpu")
    check_prepared(encoder, shape, SIZE, SIZE, [0.45] * 3, [0.225] * 3)


def test_the_company_of_a_clip_does_not_change_it() -> None:
    """The bits for a fixed batch shape, for resuming relies on them; else to float tolerance."""
    encoder = load_video_encoder("timesformer-tiny", "random:0", device="cpu")
    check_company(encoder, random_clips(6, 8), random_clips(6, 8, seed=1))


def test_bf16_is_close_and_comes_out_as_float32() -> None:
    clips = random_clips(2, 8)
    exact = load_video_encoder("timesformer-tiny", "random:0", device="cpu", precision="fp32")
    rough = load_video_encoder("timesformer-tiny", "random:0", device="cpu", precision="bf16")
    check_rough(rough.encode(clips), exact.encode(clips))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu() -> None:
    clips = random_clips(3, 8)
    expected = load_video_encoder("timesformer-tiny", "random:0", device="cpu").encode(clips)

    def load(precision: str) -> Encoder:
        return load_video_encoder(
            "timesformer-tiny", "random:0", device="cuda", precision=precision
        )

    check_cuda(load, clips, expected)


@pytest.mark.slow
def test_the_full_size_model_takes_a_clip() -> None:
    encoder = load_video_encoder("timesformer-base", "random:0", device="cpu", frames=16)
    features = encoder.encode(random_clips(1, 8, size=224))
    assert features.shape == (1, 8, encoder.spec.width) == (1, 8, 768)
    assert torch.isfinite(features).all()
