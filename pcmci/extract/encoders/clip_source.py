"""What a CLIP's name and weights stand for: a config, a tokenizer, and the file of its tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from pcmci.cache.schema import Preprocessing
from pcmci.errors import WeightsError
from pcmci.extract.config import OWN, SHIPPED, is_shipped
from pcmci.extract.encoders.names import meant
from pcmci.extract.encoders.preprocess import RESAMPLING, RESIZE_MODES
from pcmci.extract.encoders.weights import SHIPPED_FOLDER, SUFFIXES, downloading

Tokenizer = Callable[[list[str]], torch.Tensor]

HUB, FOLDER = "hf-hub:", "local-dir:"
"""open_clip's prefixes of names that bring their own config and weights."""

LOCAL_INSTEAD = (
    f"give a local checkpoint in open_clip's layout ({', '.join(SUFFIXES)}), or random:0"
)


@dataclass(frozen=True)
class ClipSource:
    """A model that is not built yet.

    config: open_clip's model config. preprocess: what differs from open_clip's defaults.
    tokenizer: makes it. own: finds the weights that the name brings along; None where it has none.
    """

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: Callable[[], Tokenizer]
    own: Callable[[], Path] | None = None

    def preprocessing(self) -> Preprocessing:
        """As open_clip's evaluation transform. Raises WeightsError for a way not supported."""
        chosen = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), self.preprocess))
        size = self.config["vision_cfg"].get("image_size", 224)
        if not isinstance(size, int) or chosen.resize_mode not in RESIZE_MODES:
            raise WeightsError(
                f"{self.name} takes images of size {size} resized by {chosen.resize_mode!r}: only "
                f"square ones, resized by {' or '.join(RESIZE_MODES)}, are supported"
            )
        # open_clip draws a `random` interpolation in training only.
        interpolation = chosen.interpolation.replace("random", "bicubic")
        if interpolation not in RESAMPLING:
            raise WeightsError(
                f"{self.name} resizes by {interpolation!r}, not {' or '.join(RESAMPLING)}"
            )
        return Preprocessing(
            resize=size,
            size=size,
            interpolation=interpolation,
            mean=tuple(chosen.mean),
            std=tuple(chosen.std),
            resize_mode=chosen.resize_mode,
        )

    def checkpoint(self, weights: str) -> Path:
        """The file of weights that are not random, downloaded where it must be."""
        if self.own and weights == OWN:
            return self.own()
        key = _registered_as(self.name)
        if tag := get_pretrained_cfg(key, weights):
            with downloading(f"weights {weights!r} of {self.name}", LOCAL_INSTEAD):
                return Path(download_pretrained(tag))
        path = Path(weights)
        if path.exists() or path.suffix in SUFFIXES:
            return path
        tags = list_pretrained_tags_by_model(key)
        choices = [*tags, *([OWN] if self.own else []), "a local checkpoint", "random:SEED"]
        raise WeightsError(
            f"{self.name} has no weights {weights!r}{meant(weights, tags, cutoff=0.5)}; "
            f"there are {', '.join(choices)}"
        )


def clip_source(name: str, weights: str) -> ClipSource:
    """Raises WeightsError for a name that stands for nothing, or not for these weights."""
    if is_shipped(name):
        own = _shipped(name)
        return _configured(name, SHIPPED_FOLDER / "clip.json", lambda: own)
    if name.startswith(HUB):
        return _on_hub(name)
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
        config = folder / "open_clip_config.json"
        return _configured(name, config, lambda: _in_folder(folder))
    if name.endswith(".json"):
        return _configured(name, Path(name), None)
    return _registered(name, weights)


def _shipped(name: str) -> Path:
    """The weights of `kitchen`, or of `kitchen:h0`: the same model, pretrained where H was 0."""
    pretraining = name.removeprefix(SHIPPED).removeprefix(":")
    stem = "clip" if name == SHIPPED else f"clip-{pretraining}"
    path = SHIPPED_FOLDER / f"{stem}.safetensors"
    if not path.is_file() or Path(stem).name != stem:
        others = sorted(SHIPPED_FOLDER.glob("clip-*.safetensors"))
        names = [SHIPPED, *(f"{SHIPPED}:{other.stem.removeprefix('clip-')}" for other in others)]
        raise WeightsError(
            f"no CLIP of the kitchen world is called {name!r}; {', '.join(names)} come with pcmci, "
            "and python training/kitchen_clip.py --h makes others"
        )
    return path


def _on_hub(name: str) -> ClipSource:
    repository = name.removeprefix(HUB)
    with downloading(f"model {name!r}", f"give {FOLDER}DIR with what the hub holds"):
        config = Path(download_pretrained_from_hf(repository, filename="open_clip_config.json"))

    def own() -> Path:
        with downloading(f"weights of {name!r}", LOCAL_INSTEAD):
            return Path(download_pretrained_from_hf(repository))

    return _configured(name, config, own)


def _configured(name: str, path: Path, own: Callable[[], Path] | None) -> ClipSource:
    """From a config file: open_clip's model config itself, or under `model_cfg` as on the hub."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"config {path} cannot be read: {error}") from error
    config = raw.get("model_cfg", raw) if isinstance(raw, dict) else {}
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if not isinstance(config.get(key), kind):
            raise WeightsError(f"config {path} is no open_clip model config: it has no {key}")
    tokenizer = lambda: _tokenizer(name, config["text_cfg"], path.parent)  # noqa: E731
    return ClipSource(name, config, raw.get("preprocess_cfg", {}), tokenizer, own)


def _registered(name: str, weights: str) -> ClipSource:
    key = _registered_as(name)
    known = open_clip.list_models()
    if key not in known:
        raise WeightsError(
            f"open_clip has no model {name!r}{meant(key, known, cutoff=0.5)}; a model is "
            f"{SHIPPED}, a name of open_clip.list_models(), {HUB}ORG/REPO, {FOLDER}DIR or a "
            "config's .json"
        )
    config = open_clip.get_model_config(key)
    tag = get_pretrained_cfg(key, weights)
    if tag.get("quick_gelu") and not config.get("quick_gelu") and f"{key}-quickgelu" in known:
        # open_clip only warns, and computes something else than what was trained.
        raise WeightsError(
            f"weights {weights!r} were trained with QuickGELU: use the model {key}-quickgelu"
        )
    tokenizer = lambda: _tokenizer(key, config["text_cfg"], None)  # noqa: E731
    return ClipSource(name, config, tag or _common_preprocess(key), tokenizer)


def _registered_as(name: str) -> str:
    """open_clip knows `ViT-B/16` as `ViT-B-16`."""
    return name.replace("/", "-")


def _common_preprocess(key: str) -> dict[str, Any]:
    """What all pretrained tags of a model agree on; open_clip's defaults where they do not.

    A local checkpoint does not say how its images were normalised; SigLIP's must not get CLIP's
    mean for that.
    """
    tags = [get_pretrained_cfg(key, tag) for tag in list_pretrained_tags_by_model(key)]
    merged = [merge_preprocess_dict(PreprocessCfg(), tag) for tag in tags]
    return merged[0] if merged and all(other == merged[0] for other in merged) else {}


def _in_folder(folder: Path) -> Path:
    stems = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    files = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
    for file in files:
        if file.is_file():
            return file
    raise WeightsError(f"folder {folder} holds no checkpoint, such as {files[0].name}")


def _tokenizer(name: str, text: dict[str, Any], beside: Path | None) -> Tokenizer:
    """open_clip's bundled byte-pair tokenizer, unless the model was trained with another one.

    A `bpe_path` of its own in a config's `tokenizer_kwargs` lies beside the config.
    """
    if "hf_tokenizer_name" in text or (beside is None and "siglip" in name.lower()):
        if name.endswith(".json"):
            raise WeightsError(
                f"config {name} wants a Hugging Face tokenizer: put config and tokenizer into a "
                f"folder and use {FOLDER}FOLDER"
            )
        if find_spec("transformers") is None:
            raise WeightsError(
                f"the tokenizer of {name} needs transformers: pip install 'pcmci[hf]'"
            )
        instead = f"give {FOLDER}DIR with what the hub holds, or a model with open_clip's tokenizer"
        with downloading(f"the tokenizer of {name}", instead):
            return open_clip.get_tokenizer(name)
    options = dict(text.get("tokenizer_kwargs", {}))
    if beside and "bpe_path" in options:
        options["bpe_path"] = str(beside / options["bpe_path"])
    try:
        return open_clip.SimpleTokenizer(context_length=text.get("context_length", 77), **options)
    except (OSError, TypeError, UnicodeError) as error:
        raise WeightsError(f"the tokenizer of {name} cannot be made: {error}") from error
