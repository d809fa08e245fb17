"""VideoMamba against transformers' Mamba in both directions, and what its loader refuses."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoder_contract import (
    check_company,
    check_cuda,
    check_prepared,
    check_rough,
    check_seed,
    features_of_a_store,
)
from torch import nn
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_video_encoder, videomamba
from pcmci.extract.encoders.cards import CARDS, labels_seen
from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.encoders.scan import blocked_scan
from pcmci.extract.encoders.videomamba import VideoMamba, VideoMambaEncoder
from pcmci.extract.encoders.videomamba_checkpoint import sizes_of
from pcmci.extract.encoders.videomamba_config import CONFIGS, STATE

State = dict[str, torch.Tensor]

SIZE, PATCH, WIDTH, LAYERS, FRAMES = 32, 8, 24, 2, 4
CONFIG = {
    "model_type": "videomamba",
    "image_size": SIZE,
    "patch_size": PATCH,
    "num_frames": FRAMES,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
}
TWINS = ("conv1d", "x_proj", "dt_proj", "A_log", "D")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def twin(key: str) -> str:
    """The name of the backward direction's parameter in the authors' files."""
    stem, dot, kind = key.partition(".")
    return "A_b_log" if key == "A_log" else f"{stem}_b{dot}{kind}"


class Reference(nn.Module):
    """The authors' model out of transformers' parts, step by step as theirs; every parameter is
    random: zero biases would hide a mistake."""

    def __init__(self, frames: int = FRAMES) -> None:
        super().__init__()
        patches = (SIZE // PATCH) ** 2
        self.proj = nn.Conv3d(3, WIDTH, (1, PATCH, PATCH), stride=(1, PATCH, PATCH))
        self.cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + patches, WIDTH))
        self.times = nn.Parameter(torch.empty(1, frames, WIDTH))
        config = MambaConfig(hidden_size=WIDTH, state_size=16, num_hidden_layers=LAYERS)
        mixers = [[MambaMixer(config, layer_idx=0) for _ in range(2)] for _ in range(LAYERS)]
        self.mixers = nn.ModuleList(nn.ModuleList(pair) for pair in mixers)
        self.norms = nn.ParameterList(torch.empty(WIDTH) for _ in range(LAYERS + 1))
        generator = torch.Generator().manual_seed(frames)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            for ahead, back in self.mixers:
                back.in_proj.weight.copy_(ahead.in_proj.weight)
                back.out_proj.weight.copy_(ahead.out_proj.weight)
        self.eval()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 to all tokens, [B, 1 + T P, W]."""
        pixels = (clips.permute(0, 4, 1, 2, 3) / 255 - per_channel(MEAN)) / per_channel(STD)
        count, frames = clips.shape[:2]
        x = self.proj(pixels).flatten(3).permute(0, 2, 3, 1).flatten(0, 1)  # [B T, P, W]
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        cls = x.unflatten(0, (count, frames))[:, 0, :1]
        patches = x[:, 1:].unflatten(0, (count, frames)).transpose(1, 2)  # [B, P, T, W]
        patches = (patches + self.times).transpose(1, 2).flatten(1, 2)
        x = torch.cat((cls, patches), dim=1)
        for (ahead, back), norm in zip(self.mixers, self.norms, strict=False):
            y = F.rms_norm(x, (WIDTH,), norm, 1e-5)
            x = x + ahead(y) + back(y.flip(1)).flip(1)
        return F.rms_norm(x, (WIDTH,), self.norms[-1], 1e-5)


def per_channel(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).view(3, 1, 1, 1)


def authors_layout(model: Reference) -> State:
    """The same weights under the names of the authors' video files, classifier included."""
    state = {
        "patch_embed.proj.weight": model.proj.weight,
        "patch_embed.proj.bias": model.proj.bias,
        "cls_token": model.cls_token,
        "pos_embed": model.pos_embed,
        "temporal_pos_embedding": model.times,
        "norm_f.weight": model.norms[-1],
        "head.weight": torch.zeros(5, WIDTH),
        "head.bias": torch.zeros(5),
    }
    for layer, (ahead, back) in enumerate(model.mixers):
        state[f"layers.{layer}.norm.weight"] = model.norms[layer]
        mixer = dict(ahead.named_parameters())
        twins = {k: v for k, v in back.named_parameters() if k.partition(".")[0] in TWINS}
        mixer |= {twin(key): tensor for key, tensor in twins.items()}
        state |= {f"layers.{layer}.mixer.{key}": tensor for key, tensor in mixer.items()}
    return {key: tensor.detach().clone() for key, tensor in state.items()}


def image_layout(state: State) -> dict[str, State]:
    """As the authors' files of images: another patch embedding, no times, in a container."""
    image = {key: tensor for key, tensor in state.items() if key != "temporal_pos_embedding"}
    image["patch_embed.proj.weight"] = image["patch_embed.proj.weight"][:, :, 0]
    return {"model": image}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videomamba") / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return path


def with_frames(folder: Path, frames: int) -> Path:
    path = folder / f"{frames}.json"
    path.write_text(json.dumps(CONFIG | {"num_frames": frames}))
    return path


def loaded(name: Path | str, weights: Path | str, frames: int = FRAMES) -> VideoMambaEncoder:
    encoder = load_video_encoder(str(name), str(weights), device="cpu", frames=frames)
    assert isinstance(encoder, VideoMambaEncoder)
    return encoder


def random_clips(clips: int, frames: int = FRAMES, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, frames, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("frames", [1, 4, 9])
def test_every_token_equals_that_of_transformers(tmp_path: Path, frames: int) -> None:
    model = Reference(frames)
    weights = tmp_path / "video.pth"
    torch.save(authors_layout(model), weights)
    encoder = loaded(with_frames(tmp_path, frames), weights, 2 * frames)
    assert (encoder.clip_frames, encoder.clip_tokens, encoder.spec.tokens) == (
        frames, frames, 2 * frames,
    )  # fmt: skip
    assert encoder.libraries == ()
    clips = random_clips(2, frames)
    with torch.no_grad():
        expected = model(clips)
    torch.testing.assert_close(encoder.all_tokens(clips), expected, rtol=0, atol=2e-5)
    features = encoder.encode(clips)
    assert (features.dtype, features.shape) == (torch.float32, (2, frames, WIDTH))
    by_frame = expected[:, 1:].unflatten(1, (frames, -1)).mean(2)
    torch.testing.assert_close(features, by_frame, rtol=0, atol=2e-5)


def test_each_layout_is_the_same_weights_there_and_back(config: Path, tmp_path: Path) -> None:
    model = Reference()
    state = authors_layout(model)
    layouts: dict[str, Any] = {
        "bare": state,
        "container": {"model": state, "epoch": 3},
        "deepspeed": {"module": state},
        "backbone": {f"backbone.{key}": tensor for key, tensor in state.items()},
        "encoder": {f"encoder.{key}": tensor for key, tensor in state.items()},
        "distributed": {f"module.{key}": tensor for key, tensor in state.items()},
    }
    hashes = set()
    for name, layout in layouts.items():
        torch.save(layout, tmp_path / f"{name}.pth")
        encoder = loaded(config, tmp_path / f"{name}.pth")
        hashes.add(encoder.spec.sha256)
        back = dict(encoder._model.state_dict())
        back["patch_embed.proj.weight"] = back["patch_embed.proj.weight"][:, :, None]
        assert back.keys() == state.keys() - {"head.weight", "head.bias"}
        assert all(torch.equal(back[key], state[key]) for key in back)
    assert len(hashes) == 1


def test_an_image_file_is_a_model_of_clips_of_one_frame(tmp_path: Path) -> None:
    model = Reference(frames=1)
    torch.save(image_layout(authors_layout(model)), tmp_path / "image.pth")
    encoder = loaded(with_frames(tmp_path, 1), tmp_path / "image.pth", frames=6)
    assert (encoder.clip_frames, encoder.spec.tokens) == (1, 6)
    clips = random_clips(3, frames=1)
    with torch.no_grad():
        model.times.zero_()
        expected = model(clips)
    torch.testing.assert_close(encoder.all_tokens(clips), expected, rtol=0, atol=2e-5)


def test_sizes_are_those_of_the_tables(config: Path, tmp_path: Path) -> None:
    """Of a model known by name; and its file says whose labels it saw."""
    with torch.device("meta"):
        shapes = VideoMamba(CONFIGS["videomamba-ti"]).state_dict()
    state = {key: torch.full(tensor.shape, 0.01) for key, tensor in shapes.items()}
    state["pos_embed"] = torch.zeros(1, 1 + 2**2, 192)
    state["temporal_pos_embedding"] = torch.zeros(1, 6, 192)
    file = tmp_path / "videomamba_t16_breakfast_f32_res224.pth"
    torch.save(state, file)
    encoder = loaded("videomamba-ti", file, frames=12)
    assert (encoder.clip_frames, encoder.spec.tokens) == (6, 12)
    assert (encoder.spec.preprocessing.size, encoder.spec.preprocessing.resize) == (32, 32)
    assert encoder.spec.labels_seen == ("breakfast",)
    assert encoder.encode(random_clips(1, 6)).shape == (1, 6, 192)
    with pytest.raises(UsageError, match=r"videomamba-ti, .*breakfast_f32.* multiple of 6"):
        loaded("videomamba-ti", file, frames=32)
    with pytest.raises(
        WeightsError, match=r"does not fit videomamba-s: cls_token is \[1, 1, 192\]"
    ):
        loaded("videomamba-s", file, frames=12)

    native = CONFIGS["videomamba-m"]
    strange = {"pos_embed": torch.zeros(1, 190, 576), "temporal_pos_embedding": torch.zeros(1, 0)}
    assert sizes_of(strange, native) == native
    torch.save(authors_layout(Reference(frames=8)), tmp_path / "eight.pth")
    with pytest.raises(WeightsError, match=r"temporal_pos_embedding is \[1, 8, 24\], not \[1, 4,"):
        loaded(config, tmp_path / "eight.pth")  # a config says its own


@pytest.mark.parametrize("size", ["t", "s", "m"])
@pytest.mark.parametrize("rest", ["f32_res224", "f64_res224", "mask_ft_f32_res224"])
def test_files_that_saw_labels_are_known_by_name(size: str, rest: str) -> None:
    for data in ("breakfast", "coin"):
        file = f"videomamba_{size}16_{data}_{rest}.pth"
        for weights in (file, f"some/where/{file}", f"hf-hub:OpenGVLab/VideoMamba/{file}"):
            assert labels_seen(weights) == (data,)
    for data in ("k400", "ssv2", "in1k"):
        assert labels_seen(f"breakfast/videomamba_{size}16_{data}_{rest}.pth") == ()


def test_checkpoints_that_do_not_fit_are_refused(config: Path, tmp_path: Path) -> None:
    state = authors_layout(Reference())
    path = tmp_path / "changed.pth"

    def refused(changed: State, match: str) -> None:
        torch.save(changed, path)
        with pytest.raises(WeightsError, match=match) as said:
            loaded(config, path)
        assert "\n" not in str(said.value)

    without = {k: v for k, v in state.items() if k != "layers.1.mixer.A_b_log"}
    refused(without, r"does not fit .*layers\.1\.mixer\.A_b_log is missing$")
    refused(state | {"extra": torch.zeros(1)}, "extra has no place$")
    tubelets = {"patch_embed.proj.weight": torch.zeros(WIDTH, 3, 2, PATCH, PATCH)}
    refused(state | tubelets, r"proj\.weight is \[24, 3, 2, 8, 8\], not \[24, 3, 8, 8\]")
    foreign = {"blocks.0.attn.qkv.weight": torch.zeros(2, 2)}
    refused(foreign, r": cls_token is missing, (\S+ is missing, ){3}and \d+ more$")
    masked = {k.replace("norm_f", "norm"): v for k, v in state.items() if "head" not in k}
    masked |= {"clip_decoder.0.head.weight": torch.zeros(8, WIDTH)}
    refused(masked, "masked pretraining .*clip_decoder.* mask_ft")
    # one direction only, as Mamba's own language models have
    plain = {k: v for k, v in state.items() if "_b" not in k}
    refused(plain, r"mixer\.A_b_log is missing")


def test_a_file_of_a_hub_id_is_fetched(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(authors_layout(Reference()), tmp_path / "videomamba_m16_coin_f32_res224.pth")

    def fetch(repository: str, filename: str) -> str:
        assert repository == "OpenGVLab/VideoMamba"
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    weights = "hf-hub:OpenGVLab/VideoMamba/videomamba_m16_coin_f32_res224.pth"
    encoder = loaded(config, weights)
    assert encoder.spec.weights == weights
    assert encoder.spec.labels_seen == ("coin",)

    def no_network(repository: str, filename: str) -> str:
        raise OSError("name not known\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    for name, given in ((config, weights), ("videomamba", "auto"), ("videomamba-ti", "auto")):
        with pytest.raises(WeightsError, match=r"could not be downloaded .*fetch it by hand"):
            loaded(name, given)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden_size": None}, "has no hidden_size"),
        ({"num_frames": 0}, "num_frames is 0, no positive number"),
        ({"state_size": 64}, "state_size is 64, only 16 is supported"),
        ({"patch_size": 7}, "patch_size must divide image_size"),
    ],
)
def test_impossible_configs_are_refused(
    tmp_path: Path, change: dict[str, object], match: str
) -> None:
    path = tmp_path / "tiny.json"
    raw = CONFIG | change
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    with pytest.raises(WeightsError, match=match):
        loaded(path, "random:0")


def test_names_and_numbers_that_cannot_be_used(config: Path) -> None:
    with pytest.raises(WeightsError, match="'videomamba-mm': did you mean videomamba-m"):
        loaded("videomamba-mm", "random:0")
    with pytest.raises(WeightsError, match=r"'nothing' of videomamba-ti are neither .*hf-hub:"):
        loaded("videomamba-ti", "nothing")
    with pytest.raises(WeightsError, match=r"there is no checkpoint nothing\.pth"):
        loaded("videomamba-ti", "nothing.pth")
    with pytest.raises(UsageError, match="that videomamba-m takes: use a multiple of 16"):
        loaded("videomamba", "random:0", frames=8)
    with pytest.raises(ValueError, match="expected uint8"):
        loaded(config, "random:0").encode(random_clips(2, 1))


def test_a_card_says_what_the_model_costs() -> None:
    """Every weight of a matrix is multiplied and added once a token; a number of state is decayed,
    fed and read, six operations without the exponential."""
    cards = [card for card in CARDS if card.name in CONFIGS]
    assert {card.name for card in cards} == CONFIGS.keys()
    for card in cards:
        frames = int(re.findall(r"_f(\d+)_res224\.pth$", card.weights)[0])
        config = sizes_of({"temporal_pos_embedding": torch.empty(1, frames, 1)}, CONFIGS[card.name])
        assert card.clip_frames == config.num_frames == frames
        assert card.labels_seen == labels_seen(card.weights)
        with torch.device("meta"):
            model = VideoMamba(config)
        assert sum(tensor.numel() for tensor in model.parameters()) == card.parameters
        matrices = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
        tokens = 1 + frames * config.patches
        states = 2 * config.num_hidden_layers * config.channels * STATE
        flop = tokens * (2 * sum(map(torch.numel, matrices)) + 6 * states)
        flop += 2 * frames * config.patches * model.patch_embed["proj"].weight.numel()
        assert flop / frames / 1e9 == pytest.approx(card.gflops, abs=0.06)


def test_random_weights_start_as_mambas_do(config: Path) -> None:
    state = loaded(config, "random:0")._model.state_dict()
    for layer in range(LAYERS):
        for rates in (f"layers.{layer}.mixer.A_log", f"layers.{layer}.mixer.A_b_log"):
            expected = torch.arange(1.0, 17.0).expand(2 * WIDTH, -1)
            torch.testing.assert_close(state[rates].exp(), expected)
        for bias in (f"layers.{layer}.mixer.dt_proj.bias", f"layers.{layer}.mixer.dt_proj_b.bias"):
            steps = F.softplus(state[bias])
            assert steps.min() > 0.001 * 0.999
            assert steps.max() < 0.1 * 1.001
            assert steps.max() / steps.min() > 10
        assert state[f"layers.{layer}.mixer.D_b"].eq(1).all()


def test_a_seed_gives_the_same_bits_and_disturbs_nobody(config: Path) -> None:
    check_seed(lambda weights: loaded(config, weights))


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (32, 32), (20, 27), (33, 517)])
def test_frames_are_prepared_as_torchvision_would(config: Path, shape: tuple[int, int]) -> None:
    encoder = loaded(config, "random:0")
    check_prepared(encoder, shape, SIZE, SIZE, MEAN, STD)


def test_frames_of_a_clip_see_each_other_and_no_other_clip(config: Path) -> None:
    encoder = loaded(config, "random:0")
    clips = random_clips(2)
    changed = clips.clone()
    changed[0, 2] = 255 - changed[0, 2]
    before, after = encoder.encode(clips), encoder.encode(changed)
    assert torch.all((before[0] != after[0]).any(dim=1))
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("width", [24, 20])
def test_the_company_of_a_clip_does_not_change_it(tmp_path: Path, width: int) -> None:
    """The bits, wherever it stands; with other widths, where rows end within a vector."""
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(CONFIG | {"hidden_size": width}))
    encoder = loaded(path, "random:0")
    check_company(encoder, random_clips(6), random_clips(6, seed=1))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(videomamba.silu, F.silu), (videomamba.softplus, F.softplus)]
)
def test_own_functions_are_torchs_and_keep_their_bits_anywhere(
    ours: Callable[[torch.Tensor], torch.Tensor], theirs: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = torch.randn(1003, generator=torch.Generator().manual_seed(0)) * 5
    x = torch.cat((x, torch.tensor([0.0, 200.0, -200.0])))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-7)
    assert torch.equal(torch.cat([ours(part) for part in x.split(7)]), ours(x))


def test_bf16_is_close_and_its_scan_in_float32(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(*inputs: torch.Tensor) -> torch.Tensor:
        seen.append(({x.dtype for x in inputs}, torch.is_autocast_enabled("cpu")))
        return blocked_scan(*inputs)

    clips = random_clips(2)
    exact = loaded(config, "random:0").encode(clips)
    monkeypatch.setattr(videomamba, "choose_scan", lambda device: (watched, ()))
    rough = load_video_encoder(
        str(config), "random:0", device="cpu", precision="bf16", frames=FRAMES
    ).encode(clips)
    assert seen == [({torch.float32}, False)] * LAYERS
    check_rough(rough, exact)


def test_a_store_of_its_features(
    config: Path, pcmci: Any, tiny_videos: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """The whole command with random weights."""
    out, frames = tmp_path / "store.zarr", 2 * FRAMES
    encoder = loaded(config, "random:0", frames)
    assert (encoder.spec.tokens, encoder.spec.width) == (frames, WIDTH)
    features = features_of_a_store(pcmci, tiny_videos, tiny_clip, config, out, encoder, frames)
    assert len(np.unique(features[:, 0], axis=0)) == 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu(config: Path) -> None:
    clips = random_clips(3)
    expected = loaded(config, "random:0").encode(clips)

    def load(precision: str) -> Encoder:
        return load_video_encoder(
            str(config), "random:0", device="cuda", precision=precision, frames=FRAMES
        )

    check_cuda(load, clips, expected, low="bf16")


@pytest.mark.slow
def test_the_full_size_model_takes_a_clip(tmp_path: Path) -> None:
    """Of two frames: on a CPU the scan takes its time."""
    sizes = dataclasses.asdict(CONFIGS["videomamba-ti"]) | {"num_frames": 2}
    (tmp_path / "ti.json").write_text(json.dumps({"model_type": "videomamba", **sizes}))
    encoder = loaded(tmp_path / "ti.json", "random:0", frames=16)
    features = encoder.encode(random_clips(1, 2, size=224))
    assert features.shape == (1, 2, encoder.spec.width) == (1, 2, 192)
    assert torch.isfinite(features).all()
