"""Prompts to the word pieces that BLIP's text towers read, as LAVIS, their authors' program, does.

The tokenizer is BERT's, without the processor of transformers around it: that one puts places for
an image before a prompt of BLIP-2, whose ids lie outside of its vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pcmci.errors import UsageError, WeightsError

REMOVED = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
"""No caption of the training had them, a template's full stop included."""

PAD = "[PAD]"
SPECIAL = (PAD, "[UNK]", "[CLS]", "[SEP]")
"""Pieces that every vocabulary of BERT has."""


def clean(prompt: str) -> str:
    """Lower case, without what is `REMOVED`, and one space between words."""
    return " ".join(prompt.lower().translate(REMOVED).split())


class BertTokens:
    """Prompts of at most `limit` tokens, [CLS] and [SEP] included; a longer one is refused.

    vocabulary: a `vocab.txt`, a piece a line. size: how many the model has vectors for. name: the
    model's.
    Raises WeightsError for a file that is no such vocabulary.
    """

    def __init__(self, vocabulary: Path, limit: int, size: int, name: str) -> None:
        from tokenizers import BertWordPieceTokenizer  # comes with transformers

        self.limit = limit
        self.name = name
        pieces = _read(vocabulary)
        words = {piece: number for number, piece in enumerate(pieces)}
        if lacking := [piece for piece in SPECIAL if piece not in words]:
            raise WeightsError(f"{vocabulary} is none of BERT's: it has no {', '.join(lacking)}")
        if len(pieces) > size:
            raise WeightsError(f"{vocabulary} has {len(pieces)} words, {name} knows {size}")
        self._pad = words[PAD]
        self._pieces = BertWordPieceTokenizer(words, lowercase=True)

    def __call__(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """[N] prompts to ids and mask, both [N, limit] int64; the mask is 0 where nothing is.

        All are as long as the longest may be: a prompt's vector depends on no other.
        Raises UsageError for a prompt with more tokens than the model reads.
        """
        rows = [self._pieces.encode(clean(prompt)).ids for prompt in prompts]
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) > self.limit:
                raise UsageError(
                    f"the prompt {prompt!r} has {len(row)} tokens, {self.name} reads "
                    f"{self.limit}: shorten the label or the template"
                )
        ids = [row + [self._pad] * (self.limit - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (self.limit - len(row)) for row in rows]
        return torch.tensor(ids), torch.tensor(mask)


def _read(vocabulary: Path) -> list[str]:
    """The pieces, whose number is their line. Some are characters that split lines elsewhere."""
    try:
        return vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeError) as error:
        raise WeightsError(f"vocabulary {vocabulary} cannot be read: {error}") from error
