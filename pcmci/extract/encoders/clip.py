"""Any open_clip model as the frozen vision-language model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import nn

from pcmci.cache.schema import EncoderSpec
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders.clip_rewrite import rewrite
from pcmci.extract.encoders.clip_source import Tokenizer, clip_source
from pcmci.extract.encoders.frozen import FrozenEncoder, spec_of
from pcmci.extract.encoders.weights import (
    random_seed,
    read_tensors,
    require_match,
)

UNUSED = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
"""The loss's scalars and OpenAI's notes about the shape: no embedding depends on them."""

PROMPTS_A_PASS = 64


class ClipEncoder(FrozenEncoder):
    """A frozen CLIP as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Embeddings are kept as the model gives them, not normalised.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        spec: EncoderSpec,
        device: torch.device,
        precision: str,
    ) -> None:
        super().__init__(model, spec, device, precision)
        rewrite(self._model.visual)
        if device.type == "cuda":
            self._model.to(memory_format=torch.channels_last)
        self._tokenizer = tokenizer
        from_hub = not isinstance(tokenizer, open_clip.SimpleTokenizer)
        self.libraries = ("transformers",) if from_hub else ()

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, 1, S, S, 3] uint8 on the model's device to [B, 1, D] float32."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            embeddings = self._model.encode_image(self._normalise(clips), normalize=False)
            return embeddings.float()[:, None]

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """[N] prompts, N at least 1, to [N, D] float32.

        Raises UsageError for a prompt with more tokens than the model reads: it would be cut.
        """
        self._require_short(prompts)
        starts = range(0, len(prompts), PROMPTS_A_PASS)
        with torch.inference_mode(), autocast(self.device, self.precision):
            passes = [
                self._model.encode_text(
                    self._tokenizer(list(prompts[start : start + PROMPTS_A_PASS])).to(self.device),
                    normalize=False,
                )
                for start in starts
            ]
            return torch.cat(passes).float().cpu().numpy()

    def _require_short(self, prompts: Iterable[str]) -> None:
        tokenizer: Any = self._tokenizer
        for prompt in prompts:
            length = token_count(tokenizer, prompt)
            if length > tokenizer.context_length:
                raise UsageError(
                    f"the prompt {prompt!r} has {length} tokens, {self.spec.name} reads "
                    f"{tokenizer.context_length}: shorten the label or the template"
                )


def token_count(tokenizer: Any, prompt: str) -> int:
    """Tokens of a prompt that is not cut, with those around it; of either of open_clip's two."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return len(tokenizer.encode(prompt)) + 2
    clips = tokenizer.tokenizer_mode == "clips"  # it puts three tokens around it by itself
    text = tokenizer.clean_fn(prompt)
    tokens = tokenizer.tokenizer(text, add_special_tokens=not clips, verbose=False).input_ids
    return len(tokens) + (3 if clips else 0)


def load(name: str, weights: str, *, device: str, precision: str, frames: int) -> ClipEncoder:
    """See `pcmci.extract.encoders.load_vlm`."""
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    source = clip_source(name, weights)
    preprocessing = source.preprocessing()
    state = read_tensors(source.checkpoint(weights)) if seed is None else None
    tokenizer = source.tokenizer()
    model = build(name, source.config, seed or 0)
    if state is not None:
        _fill(model, state, weights, name)
    spec = spec_of(
        name,
        weights,
        model.state_dict(),
        tokens=frames,
        width=source.config["embed_dim"],
        preprocessing=preprocessing,
        parameters=model.parameters(),
    )
    return ClipEncoder(model, tokenizer, spec, place, computed_in)


def build(name: str, config: dict[str, Any], seed: int) -> Any:
    """The module with random weights, as open_clip draws them; the global generator is untouched.

    The class is chosen as `open_clip.create_model` does, which cannot take a config by itself.
    """
    config = copy.deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    own_text_tower = config.pop("custom_text", False) or "hf_model_name" in text
    kind = open_clip.CustomTextCLIP if own_text_tower else open_clip.CLIP
    if own_text_tower and "multimodal_cfg" in config:
        kind = open_clip.CoCa
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return kind(**config)
        except Exception as error:  # whatever a config can get wrong
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(f"model {name!r} cannot be built: {reason[0]}") from error


def _fill(model: Any, state: dict[str, torch.Tensor], weights: str, name: str) -> None:
    """Loads a checkpoint that has every name and shape of the model, older layouts renamed."""
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    state = {
        key: tensor
        for key, tensor in state.items()
        if key not in UNUSED and not key.endswith("embeddings.position_ids")
    }
    expected = {key: tensor for key, tensor in model.state_dict().items() if key not in UNUSED}
    require_match(state, expected, weights, name)
    model.load_state_dict(state, strict=False)
