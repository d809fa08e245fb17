"""What a BLIP's name and weights stand for: sizes, vocabulary, and the file of its tensors."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcmci.errors import WeightsError
from pcmci.extract.encoders.cards import card_of
from pcmci.extract.encoders.config_file import read_json
from pcmci.extract.encoders.hub import Checkpoint, vocabulary_on_hub
from pcmci.extract.encoders.names import meant
from pcmci.extract.encoders.transformers_model import (
    State,
    config_of,
    read_config,
    require_same_values,
)
from pcmci.extract.encoders.weights import read_tensors

BLIP, BLIP2 = "blip", "blip-2"
"""The two families as `model_type` of a config calls them."""

CONFIG_CLASSES = {BLIP: "BlipConfig", BLIP2: "Blip2Config"}

ALL, MEAN = "all", "mean"
"""What becomes of BLIP-2's queries."""

# The authors' values: the library's are 8 heads (huggingface/transformers#22625) and 1e-5.
_TEXT = {"num_attention_heads": 12}
_VISION = {"layer_norm_eps": 1e-6}
_LARGE = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16,
}  # fmt: skip
_QFORMER = {"vocab_size": 30523}

CONFIGS: dict[str, dict[str, Any]] = {
    "blip-base": {"model_type": BLIP, "vision_config": _VISION, "text_config": _TEXT},
    "blip-large": {"model_type": BLIP, "vision_config": _VISION | _LARGE, "text_config": _TEXT},
    "blip2": {"model_type": BLIP2, "qformer_config": _QFORMER},
    "blip2-coco": {
        "model_type": BLIP2, "vision_config": {"image_size": 364}, "qformer_config": _QFORMER,
    },
}  # fmt: skip
"""The published models, in what differs from the library's defaults."""

QUERIES = "-queries"
"""The end of the name of a BLIP-2 whose queries are all kept."""

COMPARED = {
    BLIP: tuple(
        f"vision_config.{key}"
        for key in (
            "image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
            "hidden_act",
        )
    ),
}  # fmt: skip
COMPARED[BLIP2] = (
    *COMPARED[BLIP], "num_query_tokens", "qformer_config.num_attention_heads",
    "qformer_config.hidden_act", "qformer_config.cross_attention_frequency",
)  # fmt: skip
"""In what a checkpoint's own config has to be the model's. Not in the heads of BLIP's text tower:
older configs on the hub have the library's 8, with which the weights were never trained."""

UNUSED = {
    BLIP: r"itm_head\.|.*\.position_ids$|text_encoder\.encoder\.layer\.\d+\.crossattention\.",
    BLIP2: r"itm_head\.|.*position_ids$",
}
"""What a checkpoint has for the score of an image and a text together: no embedding needs it."""

EXTRAS = r"(qformer\.)?cls\.predictions\.|qformer\.embeddings\.(word|position)_embeddings\.|temp$"
"""What files of BLIP-2 may hold besides: the head that predicts words in training, a second copy of
the text's embeddings, and the loss's temperature. Nothing else is passed over."""


@dataclass(frozen=True)
class BlipSource:
    """A model that is not built yet.

    raw: its config as JSON, with the library's defaults for what is not said.
    queries: `all` or `mean`.
    folder: where a config file lies, None for a name.
    """

    name: str
    raw: dict[str, Any]
    queries: str
    folder: Path | None

    @property
    def family(self) -> str:
        """`blip` or `blip-2`."""
        return self.raw["model_type"]

    def config(self) -> Any:
        """The library's. Raises WeightsError for values that it does not take."""
        return self._config(self.raw)

    def state(self, found: Checkpoint, weights: str, config: Any) -> State:
        """A checkpoint's tensors without those that no embedding needs; what else it may hold is
        told on stderr. Raises WeightsError."""
        if found.config is not None:
            raw = read_config(found.config, self.family, self.name)
            compared = COMPARED[self.family]
            require_same_values(self._config(raw), config, compared, weights, self.name)
        state = {
            key: tensor
            for key, tensor in read_tensors(found.file).items()
            if not re.match(UNUSED[self.family], key)
        }
        extras = [key for key in state if self.family == BLIP2 and re.match(EXTRAS, key)]
        if extras:
            print(
                f"{self.name}: {weights} also holds what no embedding needs, and it is left out: "
                f"{', '.join(extras)}",
                file=sys.stderr,
            )
        return {key: tensor for key, tensor in state.items() if key not in extras}

    def vocabulary(self, found: Checkpoint | None) -> Path:
        """The `vocab.txt` beside the config or the weights, else that of the weights' repository,
        else of the one that the model's card names. Raises WeightsError."""
        folders = [self.folder, found.file.parent if found else None]
        for folder in folders:
            if folder and (folder / "vocab.txt").is_file():
                return folder / "vocab.txt"
        repository = found.repository if found else None
        if card := card_of("vlm", self.name):
            repository = repository or card.weights
        if repository is None:
            places = " or ".join(str(folder) for folder in folders if folder)
            raise WeightsError(f"{self.name} needs the words it reads: put vocab.txt into {places}")
        return vocabulary_on_hub(repository)

    def _config(self, raw: dict[str, Any]) -> Any:
        # Without a decoder, BLIP's text tower has no attention to an image, which only the score of
        # both together needs; without text input, BLIP-2's has no layers for text. Published
        # configs have the latter under an older name, which the library passes over.
        if self.family == BLIP:
            changed = {"text_config": {**(raw.get("text_config") or {}), "is_decoder": False}}
        else:
            qformer = {**(raw.get("qformer_config") or {}), "use_qformer_text_input": True}
            changed = {"qformer_config": qformer}
        return config_of(CONFIG_CLASSES[self.family], raw | changed, self.name)


def blip_source(name: str) -> BlipSource:
    """Raises WeightsError for a name that stands for nothing.

    A JSON config is the library's, with a `vocab.txt` beside it; `"queries": "all"` in it keeps all
    queries of a BLIP-2.
    """
    if name.endswith(".json"):
        path = Path(name)
        raw = read_json(path)
        queries = raw.pop("queries", MEAN)
        if queries not in (ALL, MEAN):
            raise WeightsError(f"config {name}: queries is {queries!r}, not {MEAN!r} or {ALL!r}")
        return BlipSource(name, raw, queries, path.parent)
    known = [*CONFIGS, *(f"{key}{QUERIES}" for key, raw in CONFIGS.items() if _has_queries(raw))]
    if name not in known:
        raise WeightsError(
            f"no VLM is called {name!r}{meant(name, known)}; of its family there are "
            f"{', '.join(known)}, or the path of a JSON config"
        )
    base = name.removesuffix(QUERIES)
    return BlipSource(name, CONFIGS[base], MEAN if base == name else ALL, None)


def _has_queries(raw: dict[str, Any]) -> bool:
    return raw["model_type"] == BLIP2
