"""BLIP and BLIP-2 (Li et al., ICML 2022 and 2023) as the frozen vision-language model.

Of both it is the branch trained with the contrastive loss between images and texts, each by itself:
only there do a frame and a label have vectors of their own. N images, Q queries, D the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.extract.encoders.bert_tokens import BertTokens
from pcmci.extract.encoders.blip_source import ALL, BLIP, BlipSource, blip_source
from pcmci.extract.encoders.frozen import FrozenEncoder, spec_of
from pcmci.extract.encoders.hub import find_checkpoint
from pcmci.extract.encoders.protocol import require_multiple
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.transformers_model import LIBRARIES, empty, fill, require_whole
from pcmci.extract.encoders.weights import random_seed, require_match

PROMPTS_A_PASS = 64

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Towers(Protocol):
    """An image and a text tower, and the projections of both.

    tokens: vectors an image. reads: tokens of a prompt. words: of the vocabulary. module: the
    library's own, whose state checkpoints have.
    """

    tokens: int
    reads: int
    words: int
    module: Any

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, S, S] to [N, tokens, D]."""
        ...

    def texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[N, reads] to [N, D]."""
        ...


class Blip(nn.Module):
    """The class token of each tower, projected; their cosine is the score of the loss."""

    tokens, reads = 1, 35

    def __init__(self, source: BlipSource, config: Any) -> None:
        super().__init__()
        self.words = config.text_config.vocab_size
        self.module = empty("BlipForImageTextRetrieval", config, source.name)
        del self.module.itm_head
        for layer in self.module.vision_model.encoder.layers:
            layer.self_attn = SelfAttention(layer.self_attn)

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `Towers`; not normalised."""
        patches = self.module.vision_model(pixel_values=pixels).last_hidden_state
        return self.module.vision_proj(patches[:, :1])

    def texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See `Towers`; not normalised."""
        words = self.module.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.module.text_proj(words[:, 0])


class SelfAttention(nn.Module):
    """An image tower's own, on scaled_dot_product_attention: the library computes the whole matrix
    of BLIP's weights, in three passes over memory."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.qkv, self.projection = attention.qkv, attention.projection

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        """[N, length, W]. Returns the same shape, and no weights."""
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.heads, -1))
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.projection(mixed.transpose(1, 2).flatten(2)), None


class Blip2(nn.Module):
    """Learned queries that look at an image's patches, each projected and normalised.

    The loss scores a text by the best of the queries. All of them are the model's word on an image;
    their mean is one vector that stands for them approximately, and was never trained as such.
    Behind the image tower everything is computed in float32, as in the authors' program.
    """

    reads = 32

    def __init__(self, source: BlipSource, config: Any) -> None:
        super().__init__()
        self.tokens = config.num_query_tokens if source.queries == ALL else 1
        self.words = config.qformer_config.vocab_size
        self.module = empty("Blip2ForImageTextRetrieval", config, source.name)
        del self.module.itm_head

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `Towers`."""
        patches = self.module.vision_model(pixel_values=pixels).last_hidden_state.float()
        with torch.autocast(pixels.device.type, enabled=False):
            vectors = self.queries(patches)
        return vectors.mean(1, keepdim=True) if self.tokens == 1 else vectors

    def queries(self, patches: torch.Tensor) -> torch.Tensor:
        """[N, patches, width of the image tower] to [N, Q, D], normalised."""
        queries = self.module.query_tokens.expand(len(patches), -1, -1)
        seen = self.module.qformer(query_embeds=queries, encoder_hidden_states=patches)
        return F.normalize(self.module.vision_projection(seen.last_hidden_state), dim=-1)

    def texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See `Towers`; normalised like the queries."""
        with torch.autocast(ids.device.type, enabled=False):
            words = self.module.embeddings(input_ids=ids)
            read = self.module.qformer(query_embeds=words, query_length=0, attention_mask=mask)
            vectors = self.module.text_projection(read.last_hidden_state[:, 0])
        return F.normalize(vectors, dim=-1)


class BlipEncoder(FrozenEncoder):
    """A frozen BLIP as the pipeline wants it, see `pcmci.extract.encoders.protocol`."""

    libraries = LIBRARIES

    def __init__(
        self,
        towers: Towers,
        prompts: BertTokens,
        spec: EncoderSpec,
        device: torch.device,
        precision: str,
    ) -> None:
        super().__init__(towers.module, spec, device, precision, clip_tokens=towers.tokens)
        if device.type == "cuda":
            self._model.to(memory_format=torch.channels_last)
        self._towers = towers
        self._prompts = prompts

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, 1, S, S, 3] uint8 on the model's device to [B, clip_tokens, D] float32."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self._towers.images(self._normalise(clips)).float()

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """[N] prompts, N at least 1, to [N, D] float32.

        Raises UsageError for a prompt with more tokens than the model reads: it would be cut.
        """
        ids, mask = self._prompts(prompts)
        with torch.inference_mode(), autocast(self.device, self.precision):
            passes = [
                self._towers.texts(some.to(self.device), there.to(self.device))
                for some, there in zip(
                    ids.split(PROMPTS_A_PASS), mask.split(PROMPTS_A_PASS), strict=True
                )
            ]
            return torch.cat(passes).float().cpu().numpy()


def load(name: str, weights: str, *, device: str, precision: str, frames: int) -> BlipEncoder:
    """See `pcmci.extract.encoders.load_vlm`."""
    source = blip_source(name)
    require_multiple(frames, 1, name)
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    found = None
    if seed is None:
        found = find_checkpoint(weights, name, example="Salesforce/blip-itm-base-coco")
    config = source.config()
    size = require_whole(config.vision_config.image_size, "image_size", name)
    towers: Towers = (Blip if source.family == BLIP else Blip2)(source, config)
    prompts = BertTokens(source.vocabulary(found), towers.reads, towers.words, name)
    expected = towers.module.state_dict()
    if found is None:
        state = random_state(expected, seed or 0)
    else:
        state = source.state(found, weights, config)
        require_match(state, expected, weights, name)
        state = {key: tensor.float() for key, tensor in state.items()}
    fill(towers.module, state, name)
    spec = spec_of(
        name,
        weights,
        state,
        tokens=frames * towers.tokens,
        width=config.image_text_hidden_size,
        preprocessing=Preprocessing(size, size, "bicubic", CLIP_MEAN, CLIP_STD, "squash"),
    )
    return BlipEncoder(towers, prompts, spec, place, computed_in)
