"""The head `pcmci` step by step: what its streams are after each stage, and what it would answer.

A stage is taken off by not running it: the streams go to the next stage, or to the decoder, as they
stand. All weights are those that were trained with every stage in its place, so that a shorter path
says what a stage does to this answer, and not what a head trained without it would have learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pcmci.heads.method.ich import ICH, asked
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.streams import Streams
from pcmci.heads.method.transport import Aligned, align


@dataclass(frozen=True)
class Walk:
    """The streams that the first stage was given, and after each of `stages`: one more than
    these."""

    stages: tuple[str, ...]
    streams: tuple[Streams, ...]

    @property
    def begun(self) -> Streams:
        return self.streams[0]


def walk(
    model: PCMCI,
    vlm: Tensor,
    video: Tensor,
    weights: Tensor | None = None,
    stages: Sequence[str] | None = None,
) -> Walk:
    """Run some of a model's stages, all of them by default, in its own order.

    vlm: V^P [B, L, D]. video: V [B, Lv, Dv]. weights: S~ [B, N, L] of the frozen embeddings,
    computed where it is wanted and not given.
    """
    begun, _ = model.begin(vlm, video, weights)
    streams = [begun]
    names = tuple(name for name in model.stages if stages is None or name in stages)
    for name in names:
        streams.append(model.stages[name](streams[-1]))
    return Walk(names, tuple(streams))


def logits(model: PCMCI, taken: Walk, step: int = -1) -> Tensor:
    """[B, N] of the decoder after so many stages of a walk; by default after all of them."""
    streams = taken.streams[step]
    answer: Tensor = model.decoder(streams.text, model.attended(streams, taken.begun))
    return answer


def embedded(model: PCMCI, taken: Walk) -> Tensor:
    """Z [B, N, D] after all stages of a walk, what the classifier reads."""
    streams = taken.streams[-1]
    z: Tensor = model.decoder.embed(streams.text, model.attended(streams, taken.begun))
    return z


def looks(model: PCMCI, taken: Walk) -> Tensor:
    """Where the decoder's query of each label looks after all stages of a walk: [B, P, N, M], P
    heads, M tokens as `PCMCI.attended` has them; rows sum to 1."""
    streams = taken.streams[-1]
    weights: Tensor = model.decoder.looks(streams.text, model.attended(streams, taken.begun))
    return weights


def learned_alignment(model: PCMCI, taken: Walk) -> Aligned | None:
    """S, P* and S~ as ich asked for them in a walk, where S is of a text that ici has rewritten;
    None for other orders."""
    ich = dict(model.stages.items()).get("ich")
    if not isinstance(ich, ICH) or ich.frozen:
        return None
    text, frames = asked(taken.streams[taken.stages.index("ich")])
    return align(text, frames, model.config.transport, lam=ich.lam)
