"""What every frozen encoder keeps, whatever is inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from pcmci.cache.schema import EncoderSpec
from pcmci.cache.store import open_store
from pcmci.extract.encoders.normalise import Normalise
from pcmci.extract.encoders.protocol import Encoder


def check_company(
    encoder: Encoder,
    clips: torch.Tensor,
    strangers: torch.Tensor,
    *,
    place: int = 4,
    row: int = 1,
    bits_alone: bool = False,
) -> None:
    """What else is in the batch does not change a clip: no bit for a fixed batch shape, for
    resuming relies on them; alone to float tolerance, or with `bits_alone` no bit either.

    strangers: other clips, as many; clip `row` takes their `place`.
    """
    together = encoder.encode(clips)
    assert torch.equal(encoder.encode(clips.flip(0)).flip(0), together)
    strangers[place] = clips[row]
    assert torch.equal(encoder.encode(strangers)[place], together[row])
    alone = torch.cat([encoder.encode(clip[None]) for clip in clips])
    if bits_alone:
        assert torch.equal(alone, together)
    else:
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def check_rough(
    rough: torch.Tensor, exact: torch.Tensor, *, tolerance: float = 0.05, scale: float = 1.0
) -> None:
    """bf16 inside, float32 outside. scale: of the largest numbers."""
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=tolerance, atol=tolerance * scale)


def check_cuda(
    load: Callable[[str], Encoder],
    clips: torch.Tensor,
    expected: torch.Tensor,
    *,
    low: str = "auto",
    scale: float = 1.0,
) -> None:
    """CUDA says what the CPU said. load: precision to the encoder there. low: the lower one."""
    for precision, tolerance in (("fp32", 1e-3), (low, 0.05)):
        found = load(precision).encode(clips.cuda()).cpu()
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * scale)


def check_seed(load: Callable[[str], Encoder]) -> EncoderSpec:
    """A seed gives the same bits whatever torch's own generator is at, and leaves that alone.
    load: weights to the encoder. Returns the spec of seed 0."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load("random:0").spec
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert load("random:0").spec == first
    assert load("random:1").spec.sha256 != first.sha256
    return first


def check_prepared(
    encoder: Encoder, shape: tuple[int, int], resize: int, size: int, mean: Any, std: Any
) -> None:
    """A frame becomes what torchvision makes of it: resized bilinearly by its shorter side, cut."""
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )(Image.fromarray(frame))
    small = torch.from_numpy(encoder.prepare(frame))
    normalised = Normalise(encoder.spec.preprocessing, frames=1)(small[None, None])[0]
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-6)


def features_of_a_store(
    pcmci: Any, videos: Any, clip: Any, config: Any, out: Any, encoder: Encoder, frames: int
) -> np.ndarray:
    """The whole command with random weights makes a store of what the encoder, loaded for as many
    frames, says of itself. Returns the features of its eight videos."""
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", videos, "--frames", frames,
        "--vlm", clip, "--vlm-weights", "random:0",
        "--video-encoder", config, "--video-weights", "random:0", "--out", out,
    )  # fmt: skip
    assert answer.code == 0
    with open_store(out) as store:
        assert store.spec.video == encoder.spec
        features = store.read("video")[store.done_rows]
    assert len(features) == 8
    assert np.isfinite(features).all()
    return features
