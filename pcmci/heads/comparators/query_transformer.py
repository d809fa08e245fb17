"""Learned queries that see one frame after another and remember what they were."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcmci.heads.comparators.bank import Bank, append
from pcmci.heads.comparators.transformer import Attend, FeedForward

Past = tuple[Bank | None, ...]
"""Of each block what its queries were at earlier frames, None for nothing."""


class QueryTransformer(nn.Module):
    """Each block: z <- LN(z + SA(z; [past, z])), z <- LN(z + CA(z; frames)), z <- LN(z + FF(z)).

    A block's past is a bank of what its z was at each frame, every query's by itself (MA-LMM's
    query memory bank, `pcmci.heads.comparators.bank`). The first block needs none: its z are the
    learned queries at every frame, and attention to copies of oneself is attention to oneself.
    """

    def __init__(
        self, width: int, *, queries: int, blocks: int, heads: int, most: int, update: str
    ) -> None:
        """most, update: see `append`."""
        super().__init__()
        self.most, self.update = most, update
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.among = nn.ModuleList(Attend(width, heads) for _ in range(blocks))
        self.look = nn.ModuleList(Attend(width, heads) for _ in range(blocks))
        self.feed = nn.ModuleList(FeedForward(width, 4 * width) for _ in range(blocks))

    def begin(self, batch: int) -> tuple[Tensor, Past]:
        """What the first block's queries are once they have attended to each other [B, q, W], at
        every frame the same; and a past of nothing."""
        queries = self.queries[None]
        return self.among[0](queries, queries).expand(batch, -1, -1), (None,) * len(self.among)

    def forward(self, begun: Tensor, frames: Tensor, past: Past) -> tuple[Tensor, Past]:
        """The queries after one more frame [B, q, W], and the past with it. begun, past: as `begin`
        gives them, or the frame before. frames: [B, n, W], the one at hand and those remembered."""
        z, longer = begun, list(past)
        blocks = zip(self.among, self.look, self.feed, past, strict=True)
        for place, (among, look, feed, bank) in enumerate(blocks):
            if place:
                z, longer[place] = recall(among, z, bank, self.most, self.update)
            z = feed(look(z, frames))
        return z, tuple(longer)


def recall(
    attend: Any, z: Tensor, bank: Bank | None, most: int, update: str
) -> tuple[Tensor, Bank]:
    """Queries [B, q, W] that attend to all that a bank holds of their past and to themselves; and
    the bank with them. attend: an `Attend`, of which lists of modules do not tell. most, update:
    see `append`.

    Where no gradient flows, a bank also holds the keys and values of its entries, which would
    otherwise be computed anew at every frame. They are affine in what they are of, and entries
    merge with weights that sum to 1: so those of a merged entry are the merged ones.
    """
    width = z.shape[-1]
    if torch.is_grad_enabled():
        own = None if bank is None else Bank(bank.entries[..., :width], bank.counts)
        past = z if own is None else torch.cat([own.entries.flatten(1, 2), z], dim=1)
        return attend(z, past), append(own, z, most, update)
    now = attend.key_value(z)
    entry = torch.cat([z, now], dim=-1)
    known = now
    if bank is not None:
        known = torch.cat([bank.entries[..., width:].flatten(1, 2), now], dim=1)
    return attend.read(z, known), append(bank, entry, most, update, width)


def with_frame(bank: Bank | None, frame: Tensor) -> Tensor:
    """The frames of a bank [B, m, W] and the one at hand [B, W], one after another."""
    now = frame[:, None]
    return now if bank is None else torch.cat([bank.entries, now], dim=1)
