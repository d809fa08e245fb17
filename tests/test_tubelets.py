"""VideoMAE and V-JEPA 2 against transformers' own forward, and what their loader refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from encoder_contract import check_company, check_cuda, check_rough
from PIL import Image
from safetensors.torch import load_file, save_file
from test_families import gigaflops
from torchvision import transforms
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
)

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_video_encoder
from pcmci.extract.encoders.cards import card_of
from pcmci.extract.encoders.normalise import Normalise
from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.encoders.transformers_model import config_of, fill, transformers_class
from pcmci.extract.encoders.tubelets import (
    CONFIGS,
    FAMILIES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TubeletEncoder,
)

SIZE, FRAMES, WIDTH = 32, 4, 24
COMMON = {
    "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "videomae": COMMON | {
        "model_type": "videomae", "image_size": SIZE, "num_frames": FRAMES,
        "intermediate_size": 40, "decoder_hidden_size": 12, "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2, "decoder_intermediate_size": 20,
    },
    "vjepa2": COMMON | {
        "model_type": "vjepa2", "crop_size": SIZE, "frames_per_clip": FRAMES, "mlp_ratio": 2,
        "pred_hidden_size": 12, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2,
        "num_pooler_layers": 1,
    },
}  # fmt: skip
PUBLISHED: dict[str, tuple[type, Any]] = {
    "videomae": (VideoMAEConfig, VideoMAEForVideoClassification),
    "vjepa2": (VJEPA2Config, VJEPA2Model),
}
"""The class whose checkpoint the card names."""


def reference(family: str, model: Any = None, **more: Any) -> Any:
    """transformers' model, every parameter random: zero biases would hide a mistake."""
    config, published = PUBLISHED[family]
    made = (model or published)(config.from_dict(TINY[family] | more))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            norm = "norm" in name and name.endswith("weight")
            size = 0.3 if drawn.dim() == 1 else drawn[0].numel() ** -0.5
            parameter.copy_(drawn * size + norm)
    return made.eval()


@pytest.fixture(params=list(TINY))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(tmp_path: Path, family: str) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY[family]))
    return path


@pytest.fixture
def hub(tmp_path: Path, family: str) -> Path:
    """A folder as the hub has it."""
    reference(family).save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


def loaded(name: Path | str, weights: Path | str, **options: Any) -> TubeletEncoder:
    encoder = load_video_encoder(str(name), str(weights), device="cpu", **options)
    assert isinstance(encoder, TubeletEncoder)
    return encoder


def random_clips(count: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, FRAMES, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def videos(clips: torch.Tensor) -> torch.Tensor:
    """[B, F, 3, S, S] as transformers takes them, normalised by hand."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (clips.permute(0, 1, 4, 2, 3) / 255 - mean) / std


def steps(tokens: torch.Tensor) -> torch.Tensor:
    """[B, T x P, W] to the means [B, T, W], the tokens of a step one after another."""
    return torch.stack([part.mean(1) for part in tokens.chunk(FRAMES // 2, dim=1)], dim=1)


def test_a_fine_tuned_videomae_is_read_as_its_classifier_does(tmp_path: Path) -> None:
    model = reference("videomae")
    model.save_pretrained(tmp_path / "hub")
    encoder = loaded(tmp_path / "hub" / "config.json", tmp_path / "hub", frames=3 * FRAMES)
    assert (encoder.clip_frames, encoder.clip_tokens, encoder.spec.tokens) == (4, 2, 6)
    assert (encoder.spec.width, encoder.libraries) == (WIDTH, ("transformers",))
    clips = random_clips(3)
    found = encoder.encode(clips)
    with torch.no_grad():
        tokens = model.videomae(videos(clips)).last_hidden_state
        expected = model.fc_norm(steps(tokens))
        logits = model(videos(clips)).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found[:, 0] - found[:, 1]).abs().max() > 0.01
    # The classifier's own norm is of the mean over all steps. A norm's shift is the same for each.
    with torch.no_grad():
        means = torch.stack([one.mean(0) for one in tokens])
        torch.testing.assert_close(model.classifier(model.fc_norm(means)), logits)


def test_a_videomae_without_a_classifier_has_its_norm_before_the_mean(tmp_path: Path) -> None:
    model = reference("videomae", VideoMAEForPreTraining, use_mean_pooling=False)
    model.save_pretrained(tmp_path / "hub")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY["videomae"]))
    clips = random_clips(2)
    with torch.no_grad():
        tokens = model.videomae(videos(clips)).last_hidden_state
    for weights in (tmp_path / "hub", tmp_path / "hub" / "model.safetensors"):
        found = loaded(tmp_path / "tiny.json", weights).encode(clips)
        torch.testing.assert_close(found, steps(tokens), rtol=0, atol=1e-5)


def test_a_videomae_with_neither_norm_is_refused(tmp_path: Path) -> None:
    reference("videomae", VideoMAEModel).save_pretrained(tmp_path / "hub")
    with pytest.raises(WeightsError, match=r"fc_norm\.weight is missing, fc_norm\.bias is missing"):
        loaded(tmp_path / "hub" / "config.json", tmp_path / "hub")


def test_the_names_of_published_biases_are_understood(tmp_path: Path) -> None:
    reference("videomae").save_pretrained(tmp_path / "hub")
    state = load_file(tmp_path / "hub" / "model.safetensors")
    newer = {
        key.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): tensor
        for key, tensor in state.items()
    }
    older = {
        key.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): tensor
        for key, tensor in state.items()
    }
    assert newer.keys() != older.keys()
    found = []
    for layout in (newer, older):
        save_file(layout, tmp_path / "hub" / "model.safetensors")
        found.append(loaded(tmp_path / "hub" / "config.json", tmp_path / "hub"))
    assert found[0].spec.sha256 == found[1].spec.sha256
    clips = random_clips(1)
    assert torch.equal(found[0].encode(clips), found[1].encode(clips))


@pytest.mark.parametrize("classifier", [False, True])
def test_vjepa2s_encoder_is_that_of_transformers_without_the_predictor(
    tmp_path: Path, classifier: bool
) -> None:
    model = reference("vjepa2", VJEPA2ForVideoClassification if classifier else None)
    model.save_pretrained(tmp_path / "hub")
    encoder = loaded(tmp_path / "hub" / "config.json", tmp_path / "hub", frames=2 * FRAMES)
    assert (encoder.clip_frames, encoder.clip_tokens, encoder.spec.tokens) == (4, 2, 4)
    clips = random_clips(3)
    body = model.vjepa2 if classifier else model
    with torch.no_grad():
        tokens = body(videos(clips), skip_predictor=True).last_hidden_state
    found = encoder.encode(clips)
    torch.testing.assert_close(found, steps(tokens), rtol=0, atol=1e-5)
    assert (found[:, 0] - found[:, 1]).abs().max() > 0.01
    own = sum(parameter.numel() for parameter in body.encoder.parameters())
    assert encoder.spec.parameters == own < sum(p.numel() for p in body.parameters())


def test_a_checkpoint_of_longer_clips_serves_shorter_ones(tmp_path: Path) -> None:
    """V-JEPA 2's positions are no parameters; VideoMAE's are counted for its native length."""
    for family, frames in (("vjepa2", "frames_per_clip"), ("videomae", "num_frames")):
        folder = tmp_path / family
        reference(family, **{frames: 16}).save_pretrained(folder)
        path = tmp_path / f"{family}.json"
        path.write_text(json.dumps(TINY[family]))
        if family == "videomae":
            with pytest.raises(WeightsError, match=r"has num_frames 16, .*needs 4"):
                loaded(path, folder)
            continue
        model = reference(family)
        clips = random_clips(2)
        with torch.no_grad():
            tokens = model(videos(clips), skip_predictor=True).last_hidden_state
        found = loaded(path, folder).encode(clips)
        torch.testing.assert_close(found, steps(tokens), rtol=0, atol=1e-5)


def test_frames_are_prepared_as_the_authors_do(config: Path, family: str) -> None:
    encoder = loaded(config, "random:0")
    transform = transforms.Compose(
        [
            transforms.Resize({"videomae": SIZE, "vjepa2": int(SIZE * 256 / 224)}[family]),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    rng = np.random.default_rng(0)
    for shape in [(48, 64), (64, 48), (32, 32), (20, 27), (33, 517)]:
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        small = torch.from_numpy(encoder.prepare(frame))[None, None]
        pixels = Normalise(encoder.spec.preprocessing, frames=1)(small)[0]
        torch.testing.assert_close(pixels, transform(Image.fromarray(frame)), rtol=0, atol=1e-6)


def test_frames_of_a_clip_see_each_other_and_no_other_clip(config: Path) -> None:
    encoder = loaded(config, "random:0")
    clips = random_clips(2)
    changed = clips.clone()
    changed[0, 3] = 255 - changed[0, 3]
    before, after = encoder.encode(clips), encoder.encode(changed)
    assert torch.all((before[0] != after[0]).any(dim=1))
    assert torch.equal(before[1], after[1])


def test_a_folder_a_file_and_a_hub_id_are_the_same_weights(
    hub: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(repository: str, filename: str) -> str:
        assert repository == "somebody/video"
        return str(hub / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    encoders = [loaded(config, hub), loaded(config, "somebody/video")]
    encoders.append(loaded(config, hub / "model.safetensors"))
    torch.save(load_file(hub / "model.safetensors"), hub / "pytorch_model.bin")
    (hub / "model.safetensors").unlink()
    encoders.append(loaded(config, hub))
    assert len({encoder.spec.sha256 for encoder in encoders}) == 1
    assert encoders[1].spec.weights == "somebody/video"


def test_checkpoints_that_do_not_fit_are_refused(
    hub: Path, config: Path, family: str, tmp_path: Path
) -> None:
    state = load_file(hub / "model.safetensors")

    def refused(changed: dict[str, torch.Tensor], match: str) -> None:
        save_file(changed, hub / "changed.safetensors")
        with pytest.raises(WeightsError, match=match):
            loaded(config, hub / "changed.safetensors")

    last = {
        "videomae": "videomae.encoder.layer.1.output.dense.weight",
        "vjepa2": "encoder.layer.1.mlp.fc2.weight",
    }[family]
    short = last.removeprefix("videomae.")
    refused({k: v for k, v in state.items() if k != last}, rf"does not fit .*{short} is missing")
    refused(state | {"extra": torch.zeros(1)}, "extra has no place")
    refused(state | {last: torch.zeros(9, 7)}, rf"{short} is \[9, 7\], not \[")
    refused({"cls_token": torch.zeros(1)}, r"is missing, .* and \d+ more")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(TINY[family] | {"num_attention_heads": 3}))
    with pytest.raises(WeightsError, match=r"has num_attention_heads 2, .*other\.json needs 3"):
        loaded(other, hub)
    name = {"videomae": "videomae-base", "vjepa2": "vjepa2-large"}[family]
    with pytest.raises(WeightsError, match=rf"has {FAMILIES[family].size} 32, {name} needs"):
        loaded(name, hub)
    strange = {"videomae": "vjepa2", "vjepa2": "videomae"}[family]
    other.write_text(json.dumps(TINY[strange]))
    with pytest.raises(WeightsError, match=rf"model_type is '{family}', .*needs '{strange}'"):
        loaded(other, hub)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_attention_heads": 5}, "cannot be built: "),
        ({"hidden_size": "wide"}, "cannot be built: "),
        ({"tubelet_size": 3}, "4 frames are no multiple of its tubelets' depth"),
        ({"image_size": [32, 32], "crop_size": [32, 32]}, r"\[32, 32\]"),
        ({"num_frames": 0, "frames_per_clip": 0}, "is 0, no positive number"),
    ],
)
def test_impossible_configs_are_refused(config: Path, change: dict[str, Any], match: str) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(WeightsError, match=match) as said:
        loaded(config, "random:0")
    assert "\n" not in str(said.value)


def test_names_and_numbers_that_cannot_be_used(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="'vjepa2-larg': did you mean vjepa2-large"):
        loaded("vjepa2-larg", "random:0")
    with pytest.raises(WeightsError, match="there are videomae-base, vjepa2-large"):
        loaded("videomae-huge", "random:0")
    with pytest.raises(UsageError, match=r"clips of 4 .*: use a multiple of 4, such as 4 or 8"):
        loaded(config, "random:0", frames=6)
    with pytest.raises(WeightsError, match="are neither a checkpoint"):
        loaded(config, "nothing")
    with pytest.raises(ValueError, match="expected uint8"):
        loaded(config, "random:0").encode(random_clips(1, size=16))
    where = "pcmci.extract.encoders.transformers_model.find_spec"
    monkeypatch.setattr(where, lambda name: None)
    with pytest.raises(WeightsError, match=r"needs transformers: pip install 'pcmci\[hf\]'"):
        loaded(config, "random:0")


def test_a_library_of_another_age_is_told_from_a_checkpoint_that_does_not_fit() -> None:
    with pytest.raises(WeightsError, match=r"tiny needs a transformers with VideoMAE9: pip inst"):
        transformers_class("VideoMAE9", "tiny")
    model = torch.nn.Module()
    model.register_buffer("rope", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(WeightsError, match=r"this version of transformers is not known: .*rope"):
        fill(model, {}, "tiny")


def test_a_seed_gives_the_same_bits_and_disturbs_nobody(tmp_path: Path) -> None:
    configs = [tmp_path / f"{family}.json" for family in TINY]
    for path in configs:
        path.write_text(json.dumps(TINY[path.stem]))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [loaded(path, "random:0").spec for path in configs]
    assert torch.equal(torch.get_rng_state(), before)
    for path, spec in zip(configs, first, strict=True):
        assert loaded(path, "random:0").spec == spec
        assert loaded(path, "random:1").spec.sha256 != spec.sha256


def test_the_company_of_a_clip_does_not_change_it(config: Path) -> None:
    """The bits for a fixed batch shape, for resuming relies on them; else to float tolerance."""
    encoder = loaded(config, "random:0")
    check_company(encoder, random_clips(6), random_clips(6, seed=1), row=2)


def test_bf16_is_close_and_comes_out_as_float32(config: Path) -> None:
    clips = random_clips(3)
    exact = loaded(config, "random:0").encode(clips)
    rough = loaded(config, "random:0", precision="bf16").encode(clips)
    check_rough(rough, exact)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu(config: Path) -> None:
    clips = random_clips(3)
    expected = loaded(config, "random:0").encode(clips)

    def load(precision: str) -> Encoder:
        return load_video_encoder(
            str(config), "random:0", device="cuda", precision=precision, frames=FRAMES
        )

    check_cuda(load, clips, expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_card_says_of_them_is_so(name: str) -> None:
    card = card_of("video", name)
    family = FAMILIES[CONFIGS[name]["model_type"]]
    config = config_of(family.config, CONFIGS[name], name)
    model = family.model(config, name).eval().requires_grad_(False)
    model.to_device(torch.device("meta"))
    frames, size = getattr(config, family.frames), getattr(config, family.size)
    clip = torch.empty(1, frames, 3, size, size, device="meta")
    assert card is not None
    assert card.clip_frames == frames == 2 * model.steps
    assert card.parameters == sum(tensor.numel() for tensor in model.state_dict().values())
    assert gigaflops(model, clip) / frames == pytest.approx(card.gflops, abs=0.06)
