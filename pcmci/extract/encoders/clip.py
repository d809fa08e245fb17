"""Any open_clip model as the frozen vision-language model."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders.preprocess import RESAMPLING, Normalise, resize_and_crop
from pcmci.extract.encoders.weights import (
    SUFFIXES,
    downloading,
    random_seed,
    read_tensors,
    require_match,
    state_dict_sha256,
)

Tokenizer = Callable[[list[str]], torch.Tensor]

HUB, FOLDER = "hf-hub:", "local-dir:"
"""open_clip's prefixes of names that bring their own config and weights."""

OWN = "own"
"""The weights that such a name brings along."""

LOCAL_INSTEAD = (
    f"give a local checkpoint in open_clip's layout ({', '.join(SUFFIXES)}), or random:0"
)

UNUSED = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
"""The loss's scalars and OpenAI's notes about the shape: no embedding depends on them."""

PROMPTS_A_PASS = 64


class ClipEncoder:
    """A frozen CLIP as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Embeddings are kept as the model gives them, not normalised.
    """

    clip_frames = 1

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        spec: EncoderSpec,
        device: torch.device,
        precision: str,
    ) -> None:
        self.spec = spec
        self.device = device
        self.precision = precision
        self._model: Any = model.requires_grad_(False).eval().to(device)
        if device.type == "cuda":
            self._model.to(memory_format=torch.channels_last)
        self._tokenizer = tokenizer
        self._normalise = Normalise(spec.preprocessing, frames=1).to(device)

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8, upright RGB, to [S, S, 3] uint8."""
        return resize_and_crop(frame, self.spec.preprocessing)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, 1, S, S, 3] uint8 on the model's device to [B, 1, D] float32."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            embeddings = self._model.encode_image(self._normalise(clips), normalize=False)
        return embeddings.float()[:, None]

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """[N] prompts to [N, D] float32.

        Raises UsageError for a prompt with more tokens than the model reads: it would be cut.
        """
        self._require_short(prompts)
        passes = [
            self._encode_tokens(self._tokenizer(list(prompts[start : start + PROMPTS_A_PASS])))
            for start in range(0, len(prompts), PROMPTS_A_PASS)
        ]
        return np.concatenate(passes)

    def _encode_tokens(self, tokens: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), autocast(self.device, self.precision):
            embeddings = self._model.encode_text(tokens.to(self.device), normalize=False)
        return embeddings.float().cpu().numpy()

    def _require_short(self, prompts: Iterable[str]) -> None:
        tokenizer = self._tokenizer
        if not isinstance(tokenizer, open_clip.SimpleTokenizer):
            return
        for prompt in prompts:
            length = len(tokenizer.encode(prompt)) + 2  # a first and a last token around it
            if length > tokenizer.context_length:
                raise UsageError(
                    f"the prompt {prompt!r} has {length} tokens, {self.spec.name} reads "
                    f"{tokenizer.context_length}: shorten the label or the template"
                )


@dataclass(frozen=True)
class _Source:
    """What a name stands for.

    config: open_clip's model config. preprocess: what differs from open_clip's defaults.
    tokenizer: makes it. own: finds the weights that the name brings along, None without any.
    """

    config: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: Callable[[], Tokenizer]
    own: Callable[[], Path] | None = None


def load(name: str, weights: str, *, device: str, precision: str, frames: int) -> ClipEncoder:
    """See `pcmci.extract.encoders.load_vlm`."""
    if frames < 1:
        raise UsageError(f"{frames} frames a view: at least 1 is needed")
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    source = _source(name, weights)
    seed = random_seed(weights)
    state = None if seed is not None else read_tensors(_checkpoint(name, weights, source))
    tokenizer = source.tokenizer()
    model = _build(name, source.config, seed or 0)
    if state is not None:
        _fill(model, state, weights, name)
    spec = EncoderSpec(
        name=name,
        weights=weights,
        sha256=state_dict_sha256(model.state_dict()),
        tokens=frames,
        width=source.config["embed_dim"],
        preprocessing=_preprocessing(name, source.preprocess, model.visual.image_size),
    )
    return ClipEncoder(model, tokenizer, spec, place, computed_in)


def _source(name: str, weights: str) -> _Source:
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        with downloading(f"model {name!r}", "give local-dir:FOLDER with what the hub holds"):
            path = Path(download_pretrained_from_hf(repository, filename="open_clip_config.json"))

        def own() -> Path:
            with downloading(f"weights of {name!r}", LOCAL_INSTEAD):
                return Path(download_pretrained_from_hf(repository))

        return _configured(path, lambda: _library_tokenizer(name), own)
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
        path = folder / "open_clip_config.json"
        return _configured(path, lambda: _library_tokenizer(name), lambda: _in_folder(folder))
    if name.endswith(".json"):
        return _configured(Path(name), lambda: _local_tokenizer(Path(name)), None)
    return _registered(name, weights)


def _configured(
    path: Path, hub_tokenizer: Callable[[], Tokenizer], own: Callable[[], Path] | None
) -> _Source:
    """A config file: open_clip's model config itself, or under `model_cfg` as the hub has it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"config {path} cannot be read: {error}") from error
    config = raw.get("model_cfg", raw) if isinstance(raw, dict) else {}
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if not isinstance(config.get(key), kind):
            raise WeightsError(f"config {path} is no open_clip model config: it has no {key}")
    text = config["text_cfg"]
    tokenizer = hub_tokenizer if "hf_tokenizer_name" in text else lambda: _bundled(text, path)
    return _Source(config, raw.get("preprocess_cfg", {}), tokenizer, own)


def _registered(name: str, weights: str) -> _Source:
    """A model of open_clip's own list, which knows it by `ViT-B/16` as well as by `ViT-B-16`."""
    key = name.replace("/", "-")
    config = open_clip.get_model_config(key)
    if config is None:
        close = difflib.get_close_matches(key, open_clip.list_models(), cutoff=0.5)
        raise WeightsError(
            f"open_clip has no model {name!r}"
            + (f": did you mean {' or '.join(close)}?" if close else "")
            + f" Names are those of open_clip.list_models(), {HUB}ORG/REPO, {FOLDER}DIR or a "
            "config's .json"
        )
    tag = get_pretrained_cfg(key, weights)
    if (
        tag.get("quick_gelu")
        and not config.get("quick_gelu")
        and f"{key}-quickgelu" in (open_clip.list_models())
    ):
        raise WeightsError(
            f"weights {weights!r} were trained with QuickGELU: use the model {key}-quickgelu"
        )
    return _Source(config, tag or _common_preprocess(key), lambda: _library_tokenizer(key))


def _common_preprocess(key: str) -> dict[str, Any]:
    """What all pretrained tags of a model agree on; open_clip's defaults where they do not.

    A local checkpoint does not say how its images were normalised. SigLIP's must not get CLIP's
    mean for that.
    """
    tags = [get_pretrained_cfg(key, tag) for tag in list_pretrained_tags_by_model(key)]
    choices = [merge_preprocess_dict(PreprocessCfg(), tag) for tag in tags]
    return choices[0] if choices and all(c == choices[0] for c in choices) else {}


def _checkpoint(name: str, weights: str, source: _Source) -> Path:
    """The file of weights that are not random, downloaded where it must be."""
    if source.own and weights == OWN:
        return source.own()
    key = name.replace("/", "-")
    if tag := get_pretrained_cfg(key, weights):
        with downloading(f"weights {weights!r} of {name}", LOCAL_INSTEAD):
            return Path(download_pretrained(tag))
    path = Path(weights)
    if path.exists() or path.suffix in SUFFIXES:
        return path
    tags = list_pretrained_tags_by_model(key)
    close = difflib.get_close_matches(weights, tags, cutoff=0.5)
    kinds = ["a local checkpoint", "random:SEED"]
    kinds = [OWN, *kinds] if source.own else [*tags, *kinds]
    raise WeightsError(
        f"{name} has no weights {weights!r}"
        + (f": did you mean {' or '.join(close)}?" if close else "")
        + f" There are {', '.join(kinds)}"
    )


def _in_folder(folder: Path) -> Path:
    names = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    files = [folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES]
    for file in files:
        if file.is_file():
            return file
    raise WeightsError(f"folder {folder} holds no checkpoint, such as {files[0].name}")


def _library_tokenizer(name: str) -> Tokenizer:
    instead = "only models with open_clip's own tokenizer can be used"
    with downloading(f"the tokenizer of {name}", instead):
        return open_clip.get_tokenizer(name)


def _local_tokenizer(config: Path) -> Tokenizer:
    raise WeightsError(
        f"config {config} wants a Hugging Face tokenizer: put config and tokenizer into a folder "
        f"and use {FOLDER}FOLDER"
    )


def _bundled(text: dict[str, Any], config: Path) -> Tokenizer:
    """open_clip's byte-pair tokenizer; a `bpe_path` of its own lies beside the config."""
    options = dict(text.get("tokenizer_kwargs", {}))
    if "bpe_path" in options:
        options["bpe_path"] = str(config.parent / options["bpe_path"])
    return open_clip.SimpleTokenizer(context_length=text.get("context_length", 77), **options)


def _build(name: str, config: dict[str, Any], seed: int) -> Any:
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
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"model {name!r} cannot be built: {reason}") from error


def _fill(model: Any, state: dict[str, torch.Tensor], weights: str, name: str) -> None:
    """Loads a checkpoint with every name and shape as the model has them, older layouts renamed."""
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


def _preprocessing(name: str, differs: dict[str, Any], image_size: Any) -> Preprocessing:
    chosen = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), differs))
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height != width or chosen.resize_mode != "shortest":
        raise WeightsError(
            f"{name} takes {height}x{width} images resized by {chosen.resize_mode!r}: only square "
            "ones, resized by their shorter side, are supported"
        )
    interpolation = "bicubic" if chosen.interpolation == "random" else chosen.interpolation
    if interpolation not in RESAMPLING:
        raise WeightsError(f"{name} resizes with {interpolation!r}: only {', '.join(RESAMPLING)}")
    return Preprocessing(height, height, interpolation, tuple(chosen.mean), tuple(chosen.std))
