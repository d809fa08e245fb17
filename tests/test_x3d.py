"""X3D against pytorchvideo's with the same weights, and what its loader refuses."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_contract import (
    check_company,
    check_cuda,
    check_prepared,
    check_rough,
    check_seed,
    features_of_a_store,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_video_encoder
from pcmci.extract.encoders.cards import card_of
from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.x3d import X3D, X3DEncoder
from pcmci.extract.encoders.x3d_checkpoint import fold, pytorchvideo_name, read_state, unfolded
from pcmci.extract.encoders.x3d_config import CONFIGS, X3DConfig, read_config

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about torch.jit
        from pytorchvideo.models import hub
        from pytorchvideo.models.x3d import create_x3d
except ImportError:
    create_x3d = None

needs_pytorchvideo = pytest.mark.skipif(
    create_x3d is None, reason="pytorchvideo cannot be imported (pip install 'pcmci[test]')"
)

State = dict[str, torch.Tensor]

SIZE, FRAMES, WIDTH = 40, 4, 24
CONFIG: dict[str, Any] = {
    "model_type": "x3d",
    "short_side": 45,
    "input_crop_size": SIZE,
    "input_clip_length": FRAMES,
    "depth_factor": 0.5,  # 1, 1, 3, 2 blocks
    "stem_dim_in": 4,
    "head_dim_out": WIDTH,
}
OURS_ALONE = ("model_type", "short_side")
SHORTCUT = "blocks.1.res_blocks.0.branch1_norm"
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter and statistic random: zero biases and means would hide a mistake."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif tensor.is_floating_point():
                around = 1 if "norm" in key and key.endswith("weight") else 0
                tensor.normal_(around, 0.2, generator=generator)
    return model.eval()


def reference(**changes: Any) -> Any:
    """pytorchvideo's model."""
    sizes = {k: v for k, v in (CONFIG | changes).items() if k not in OURS_ALONE}
    return randomised(create_x3d(model_num_class=5, **sizes))


def reference_tokens(model: Any, clips: torch.Tensor) -> torch.Tensor:
    """pytorchvideo's classifier's input, its pooling that of a frame: [B, T, D]."""
    x = (clips.permute(0, 4, 1, 2, 3) / 255 - 0.45) / 0.225
    head = model.blocks[5].pool
    head.pool = nn.AvgPool3d((1, *head.pool.kernel_size[1:]), stride=1)
    with torch.no_grad():
        for block in model.blocks[:5]:
            x = block(x)
        x = head(x)
    assert x.shape[3:] == (1, 1)
    return x[..., 0, 0].transpose(1, 2)


def with_first_norm(model: Any) -> Any:
    """As SlowFast has it, a batch norm on the very first shortcut."""
    block = model.blocks[1].res_blocks[0]
    block.branch1_norm = randomised(nn.BatchNorm3d(block.branch1_conv.out_channels))
    return model


def slowfast_layout(model: Any) -> State:
    """The same weights under the names of SlowFast's checkpoints, module by module."""
    stem, *stages, head = model.blocks
    modules = {
        "s1.pathway0_stem.conv_xy": stem.conv.conv_t,
        "s1.pathway0_stem.conv": stem.conv.conv_xy,
        "s1.pathway0_stem.bn": stem.norm,
        "head.conv_5": head.pool.pre_conv,
        "head.conv_5_bn": head.pool.pre_norm,
        "head.lin_5": head.pool.post_conv,
        "head.projection": head.proj,
    }
    for number, stage in enumerate(stages, start=2):
        for index, block in enumerate(stage.res_blocks):
            branch, name = block.branch2, f"s{number}.pathway0_res{index}"
            norm, excite = branch.norm_b
            modules |= {
                f"{name}.branch2.a": branch.conv_a,
                f"{name}.branch2.a_bn": branch.norm_a,
                f"{name}.branch2.b": branch.conv_b,
                f"{name}.branch2.b_bn": norm,
                f"{name}.branch2.c": branch.conv_c,
                f"{name}.branch2.c_bn": branch.norm_c,
            }
            if index == 0:
                modules[f"{name}.branch1"] = block.branch1_conv
                modules[f"{name}.branch1_bn"] = block.branch1_norm
            if index % 2 == 0:
                modules[f"{name}.branch2.se.fc1"] = excite.block[0]
                modules[f"{name}.branch2.se.fc2"] = excite.block[2]
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in modules.items()
        if module is not None
        for key, tensor in module.state_dict().items()
    }


def made_up_layout(config: Path | X3DConfig, *, first_norm: bool) -> State:
    """A state of SlowFast's names without a reference, for what is refused by its names."""
    sizes = read_config(config) if isinstance(config, Path) else config
    with torch.device("meta"):
        model = X3D(sizes)
    return random_state(unfolded(model.state_dict(), first_shortcut=first_norm), 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("x3d"))


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.json"
    raw = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    path.write_text(json.dumps(raw))
    return path


def loaded(name: Path | str, weights: Path | str, frames: int = FRAMES) -> X3DEncoder:
    encoder = load_video_encoder(str(name), str(weights), device="cpu", frames=frames)
    assert isinstance(encoder, X3DEncoder)
    return encoder


def saved(path: Path, state: State) -> Path:
    """As both libraries' training programs write them."""
    torch.save({"epoch": 3, "model_state": state, "optimizer_state": {}, "cfg": "A: 1\n"}, path)
    return path


def random_clips(clips: int, frames: int = FRAMES, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, frames, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@needs_pytorchvideo
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input_clip_length": 1},
        {"input_clip_length": 13, "input_crop_size": 33, "short_side": 33},
        {"stem_dim_in": 6, "depth_factor": 1.0, "head_dim_out": 40},  # widths between eights
        {"stem_dim_in": 12, "depth_factor": 2.2, "head_dim_out": 2048},  # M, of small frames
    ],
    ids=str,
)
def test_tokens_equal_those_of_pytorchvideo(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = reference(**changes)
    frames, size, width = (
        (CONFIG | changes)[key] for key in ("input_clip_length", "input_crop_size", "head_dim_out")
    )
    weights = saved(tmp_path / "X3D.pyth", model.state_dict())
    encoder = loaded(written(tmp_path, **changes), weights, 2 * frames)
    assert (encoder.clip_frames, encoder.clip_tokens) == (frames, frames)
    assert (encoder.spec.tokens, encoder.spec.width) == (2 * frames, width)
    assert encoder.libraries == ()
    clips = random_clips(2, frames, size)
    expected = reference_tokens(model, clips)
    features = encoder.encode(clips)
    assert (features.dtype, features.shape) == (torch.float32, (2, frames, width))
    assert float((expected > 0).float().mean()) > 0.1  # after a ReLU: not all has become 0
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


@needs_pytorchvideo
def test_slowfasts_layout_has_a_norm_that_pytorchvideos_has_not(
    config: Path, tmp_path: Path
) -> None:
    clips = random_clips(2)
    slowfast = loaded(
        config, saved(tmp_path / "x3d.pyth", slowfast_layout(with_first_norm(reference())))
    ).encode(clips)
    plain = loaded(config, saved(tmp_path / "X3D.pyth", reference().state_dict())).encode(clips)
    expected = reference_tokens(with_first_norm(reference()), clips)
    torch.testing.assert_close(slowfast, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
    assert float((slowfast - plain).abs().max()) > 0.01 * float(expected.max())


@needs_pytorchvideo
def test_each_layout_is_the_same_weights_there_and_back(config: Path, tmp_path: Path) -> None:
    model = reference()
    theirs = model.state_dict()
    with torch.device("meta"):
        module = X3D(read_config(config)).state_dict()

    def read(file: Path) -> State:
        return read_state(str(file), "tiny", read_config(config), module)

    found = read(saved(tmp_path / "X3D.pyth", theirs))
    back = {pytorchvideo_name(key): tensor for key, tensor in found.items()}
    left_out = {key for key in theirs if "num_batches" in key or key.startswith("blocks.5.proj")}
    assert back.keys() == theirs.keys() - left_out
    assert all(torch.equal(back[key], theirs[key]) for key in back)
    assert {key.split(".")[0] for key in found} == {"s1", "s2", "s3", "s4", "s5", "head"}

    other = slowfast_layout(with_first_norm(model))
    again = read(saved(tmp_path / "x3d.pyth", other))
    norm = {f"s2.pathway0_res0.branch1_bn.{key}" for key in NORM[:-1]}
    assert again.keys() == found.keys() | norm
    assert all(torch.equal(again[key], other[key]) for key in again)
    assert all(torch.equal(again[key], found[key]) for key in found)
    assert pytorchvideo_name("s2.pathway0_res0.branch1_bn.bias") == f"{SHORTCUT}.bias"


def test_folding_takes_every_norm_into_the_convolution_before_it(config: Path) -> None:
    """Each layer by itself against torch's batch norm."""
    state = made_up_layout(config, first_norm=True)
    generator = torch.Generator().manual_seed(0)
    norms = {key.rpartition(".")[0] for key in state if key.endswith("running_var")}
    for norm in norms:
        for kind in ("weight", "bias", "running_mean"):
            state[f"{norm}.{kind}"].normal_(0, 1, generator=generator)
        state[f"{norm}.running_var"].uniform_(0.01, 4, generator=generator)
    folded = fold(state)
    layers = {norm: norm.replace("stem.bn", "stem.conv").removesuffix("_bn") for norm in norms}
    assert {key for key in folded if key.endswith(".bias") and ".se." not in key} == {
        f"{layer}.bias" for layer in layers.values()
    }
    for norm, layer in layers.items():
        weight = state[f"{layer}.weight"].flatten(1)
        x = torch.randn(7, weight.shape[1], generator=generator)
        w, b, mean, var = (state[f"{norm}.{kind}"] for kind in NORM[:-1])
        expected = nn.functional.batch_norm(x @ weight.T, mean, var, w, b, eps=1e-5)
        found = x @ folded[f"{layer}.weight"].flatten(1).T + folded[f"{layer}.bias"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_checkpoints_that_do_not_fit_are_refused(config: Path, tmp_path: Path) -> None:
    """By the names that they themselves have."""
    slowfast = made_up_layout(config, first_norm=True)
    theirs = {
        pytorchvideo_name(key): tensor
        for key, tensor in made_up_layout(config, first_norm=False).items()
    }

    def refused(changed: State, match: str, name: Path | str = config) -> None:
        path = saved(tmp_path / "changed.pyth", changed)
        with pytest.raises(WeightsError, match=match) as said:
            loaded(name, path, FRAMES if name == config else 16)
        assert "\n" not in str(said.value)

    for state in (slowfast, theirs):  # what is no matter of the features
        extra = {"head.projection.weight": torch.zeros(7, 3), "blocks.5.proj.bias": torch.zeros(1)}
        counted = {
            key.replace("running_var", "num_batches_tracked"): torch.tensor(7)
            for key in state
            if key.endswith("running_var")
        }
        loaded(config, saved(tmp_path / "whole.pyth", state | extra | counted))

    se = "s4.pathway0_res2.branch2.se.fc2.bias"
    without = {key: tensor for key, tensor in slowfast.items() if key != se}
    refused(without, rf"does not fit .*: {se} is missing$")
    renamed = {key: tensor for key, tensor in theirs.items() if key != pytorchvideo_name(se)}
    refused(renamed, r": blocks\.3\.res_blocks\.2\.branch2\.norm_b\.1\.block\.2\.bias is missing$")
    refused(slowfast | {"s6.extra": torch.zeros(1)}, "s6.extra has no place$")
    wider = {"blocks.0.norm.running_mean": torch.zeros(9)}
    refused(theirs | wider, r"blocks\.0\.norm\.running_mean is \[9\], not \[8\]$")
    foreign = {"layer1.0.conv1.weight": torch.zeros(2, 2)}
    refused(foreign, r": (blocks\.0\.\S+ is missing, ){4}and \d+ more$")

    norm = {f"s2.pathway0_res0.branch1_bn.{kind}": torch.ones(8) for kind in NORM[:-1]}
    plain = {key: tensor for key, tensor in slowfast.items() if key not in norm}
    refused(plain, r"s2\.pathway0_res0\.branch1_bn\.weight is missing, ")
    with_norm = theirs | {f"{SHORTCUT}.{kind}": torch.ones(8) for kind in NORM[:-1]}
    refused(with_norm, rf"{SHORTCUT}\.weight has no place, ")

    large = made_up_layout(CONFIGS["x3d-l"], first_norm=True)
    refused(large, r"does not fit x3d-m: s2\.pathway0_res3\.\S+ has no place, ", "x3d-m")


def test_a_folder_is_compared_with_its_config(config: Path, tmp_path: Path) -> None:
    state = made_up_layout(config, first_norm=False)
    theirs = {pytorchvideo_name(key): tensor for key, tensor in state.items()}
    torch.save(theirs, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(config.read_text())
    spec = loaded(config, tmp_path).spec
    assert spec.sha256 == loaded(config, "random:0").spec.sha256
    other = written(tmp_path, head_dim_out=16)
    with pytest.raises(WeightsError, match=r"has head_dim_out 24, .*tiny\.json needs 16"):
        loaded(other, tmp_path)


@needs_pytorchvideo
@pytest.mark.parametrize("name", CONFIGS)
def test_the_authors_models_have_their_sizes(name: str) -> None:
    config, card = CONFIGS[name], card_of("video", name)
    assert card is not None
    published = getattr(hub, name.replace("-", "_"))
    with torch.device("meta"):
        model = X3D(config).eval().requires_grad_(False)
        theirs = published(pretrained=False)
        pixels = torch.empty(config.input_clip_length, 3, *[config.input_crop_size] * 2)
    expected = {
        key: tensor.shape
        for key, tensor in theirs.state_dict().items()
        if "num_batches" not in key and not key.startswith("blocks.5.proj")
    }
    state = unfolded(model.state_dict(), first_shortcut=False)
    assert {pytorchvideo_name(key): tensor.shape for key, tensor in state.items()} == expected
    frames, side, _ = theirs.blocks[5].pool.pool.kernel_size
    assert math.ceil(config.input_crop_size / 32) == side
    assert config.input_clip_length == (16 if name == "x3d-s" else frames)
    assert 1.13 < config.short_side / config.input_crop_size < 1.15

    classifier = theirs.blocks[5].proj
    parameters = sum(tensor.numel() for tensor in theirs.parameters())
    parameters -= classifier.weight.numel() + classifier.bias.numel()
    assert (card.parameters, card.clip_frames) == (parameters, config.input_clip_length)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(pixels)
    flop = counter.get_total_flops() / config.input_clip_length
    assert card.gflops == round(flop / 1e9, 1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"depth_factor": None}, "has no depth_factor"),
        ({"depth_factor": "2"}, "depth_factor is '2', no positive number"),
        ({"depth_factor": math.inf}, "depth_factor is inf, no positive number"),
        ({"depth_factor": 0.0}, r"depth_factor is 0\.0, no positive number"),
        ({"input_clip_length": 2.5}, r"input_clip_length is 2\.5, no positive number"),
        ({"stem_dim_in": True}, "stem_dim_in is True, no positive number"),
        ({"short_side": 39}, "short_side is 39, at least the 40 of input_crop_size"),
        ({"width_factor": 1.0}, r"width_factor is 1\.0, only 2\.0 is supported"),
        ({"head_bn_lin5_on": True}, "head_bn_lin5_on is True, only False"),
    ],
    ids=str,
)
def test_impossible_configs_are_refused(
    tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(WeightsError, match=match):
        loaded(written(tmp_path, **changes), "random:0")


def test_names_and_numbers_that_cannot_be_used(config: Path) -> None:
    with pytest.raises(WeightsError, match="'x3d-xl': did you mean x3d-"):
        loaded("x3d-xl", "random:0")
    with pytest.raises(WeightsError, match=r"'nothing' of x3d-m are neither"):
        loaded("x3d-m", "nothing", 16)
    with pytest.raises(WeightsError, match=r"there is no checkpoint X3D_M\.pyth"):
        loaded("x3d", "X3D_M.pyth", 16)
    for name, file in (("x3d", "X3D_M"), ("x3d-s", "X3D_S"), ("x3d-l", "X3D_L")):
        with pytest.raises(WeightsError, match=rf"fetched by hand: .* {file}\.pyth of pytorchv"):
            loaded(name, "auto", 16)
    with pytest.raises(UsageError, match="clips of 16 that x3d-s takes: use a multiple of 16"):
        loaded("x3d-s", "random:0", 13)
    with pytest.raises(ValueError, match="expected uint8"):
        loaded(config, "random:0").encode(random_clips(2, 1))


def test_a_seed_gives_the_same_bits_and_disturbs_nobody(config: Path) -> None:
    check_seed(lambda weights: loaded(config, weights))


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (45, 45), (20, 27), (46, 517)])
def test_frames_are_prepared_as_torchvision_would(config: Path, shape: tuple[int, int]) -> None:
    encoder = loaded(config, "random:0")
    check_prepared(encoder, shape, CONFIG["short_side"], SIZE, [0.45] * 3, [0.225] * 3)


def test_frames_of_a_clip_see_each_other_and_no_other_clip(config: Path) -> None:
    encoder = loaded(config, "random:0")
    clips = random_clips(2)
    changed = clips.clone()
    changed[0, 2] = 255 - changed[0, 2]
    before, after = encoder.encode(clips), encoder.encode(changed)
    assert torch.all((before[0] != after[0]).any(dim=1))
    assert torch.equal(before[1], after[1])


@pytest.fixture
def threads() -> Iterator[None]:
    """As many as divide nothing here: what a thread gets then ends within a vector."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_company_of_a_clip_does_not_change_it(config: Path) -> None:
    """The bits, wherever it stands and in a batch of any size."""
    encoder = loaded(config, "random:0")
    check_company(encoder, random_clips(5), random_clips(5, seed=1), bits_alone=True)


def test_bf16_is_close_and_comes_out_as_float32(config: Path) -> None:
    clips = random_clips(2)
    exact = loaded(config, "random:0").encode(clips)
    rough = load_video_encoder(
        str(config), "random:0", device="cpu", precision="bf16", frames=FRAMES
    ).encode(clips)
    check_rough(rough, exact, scale=float(exact.max()))


def test_a_store_of_its_features(
    config: Path, pcmci: Any, tiny_videos: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """The whole command with random weights."""
    out, frames = tmp_path / "store.zarr", 2 * FRAMES
    encoder = loaded(config, "random:0", frames)
    assert (encoder.spec.tokens, encoder.spec.width) == (frames, WIDTH)
    features = features_of_a_store(pcmci, tiny_videos, tiny_clip, config, out, encoder, frames)
    assert len(np.unique(features.reshape(8, -1), axis=0)) == 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu(config: Path) -> None:
    clips = random_clips(3)
    expected = loaded(config, "random:0").encode(clips)

    def load(precision: str) -> Encoder:
        return load_video_encoder(
            str(config), "random:0", device="cuda", precision=precision, frames=FRAMES
        )

    check_cuda(load, clips, expected, low="bf16", scale=float(expected.max()))


@pytest.mark.slow
@needs_pytorchvideo
def test_the_full_size_model_takes_a_clip(tmp_path: Path) -> None:
    model = randomised(hub.x3d_m(pretrained=False))
    encoder = loaded("x3d", saved(tmp_path / "X3D_M.pyth", model.state_dict()), 32)
    clips = random_clips(1, 16, size=224)
    features, expected = encoder.encode(clips), reference_tokens(model, clips)
    assert features.shape == (1, 16, encoder.spec.width) == (1, 16, 2048)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
