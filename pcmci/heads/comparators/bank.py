"""A memory of fixed length for what comes one after another.

MA-LMM (He et al., CVPR 2024) keeps a bank of the past; when it is full, the two neighbours that are
most alike become one. Its text has their mean (eq. 7), its code that mean weighted by how many
frames each stands for. First in, first out, and one running mean are its own controls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Bank:
    """entries: [..., m, W], in the order of time. counts: [..., m], how many of what was appended
    each stands for."""

    entries: Tensor
    counts: Tensor


def append(
    bank: Bank | None, entry: Tensor, most: int, update: str, alike: int | None = None
) -> Bank:
    """The bank with one entry more, at most `most` long. bank: None for an empty one. entry:
    [..., W]. update: what a full bank does, `weighted`, `merge`, `fifo`; or `mean`, which keeps one
    entry, the mean of all. alike: see `merge_most_alike`."""
    precise = torch.promote_types(entry.dtype, torch.float32)  # bf16 counts to 256
    entries, counts = entry[..., None, :], entry.new_ones((*entry.shape[:-1], 1), dtype=precise)
    if bank is not None:
        entries = torch.cat([bank.entries, entries], dim=-2)
        counts = torch.cat([bank.counts, counts], dim=-1)
    longer = Bank(entries, counts)
    if update == "mean":
        total = counts.sum(-1, keepdim=True)
        return Bank((counts[..., None] * entries).sum(-2, keepdim=True) / total[..., None], total)
    if entries.shape[-2] <= most:
        return longer
    if update == "fifo":
        return Bank(entries[..., -most:, :], counts[..., -most:])
    return merge_most_alike(longer, weighted=update == "weighted", alike=alike)


def merge_most_alike(bank: Bank, *, weighted: bool, alike: int | None = None) -> Bank:
    """One entry fewer: k = argmax_t cos(b_t, b_{t+1}), the first of several, and b_k and b_{k+1}
    become their mean, weighted by their counts or plain. Each row of the leading dimensions for
    itself. alike: how many of an entry's numbers the cosine is of, the first; the rest, all where
    it is None, is merged with them."""
    unit = F.normalize(bank.entries[..., :alike].to(bank.counts.dtype), dim=-1)
    cosine = (unit[..., :-1, :] * unit[..., 1:, :]).sum(-1)
    k = cosine.argmax(-1, keepdim=True)
    place = torch.arange(cosine.shape[-1], device=k.device)
    kept = place + (place > k)
    one, other = _entries_at(bank.entries, k), _entries_at(bank.entries, k + 1)
    ours, theirs = (bank.counts.gather(-1, index) for index in (k, k + 1))
    share = (ours / (ours + theirs))[..., None] if weighted else 0.5
    merged = place == k
    return Bank(
        torch.where(
            merged[..., None],
            share * one + (1 - share) * other,
            _entries_at(bank.entries, kept),
        ),
        torch.where(merged, ours + theirs, bank.counts.gather(-1, kept)),
    )


def _entries_at(entries: Tensor, index: Tensor) -> Tensor:
    """entries: [..., m, W]. index: [..., n]. Returns [..., n, W]."""
    return entries.gather(-2, index[..., None].expand(*index.shape, entries.shape[-1]))
