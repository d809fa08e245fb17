"""Memories of fixed length: what they keep, and what becomes of the rest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcmci.heads.comparators.bank import Bank, append, merge_most_alike
from pcmci.heads.comparators.config import UPDATES

M, L, W = 4, 11, 6


def seen(seed: int = 0, frames: int = L) -> Tensor:
    """[2, 3, L, W]: of two videos, three streams each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, frames, W, generator=generator, dtype=torch.float64)


def remember(frames: Tensor, most: int, update: str) -> Bank:
    bank = None
    for frame in frames.unbind(-2):
        bank = append(bank, frame, most, update)
    assert bank is not None
    return bank


@pytest.mark.parametrize("update", ["weighted", "merge", "mean"])
def test_every_frame_is_counted_once(update: str) -> None:
    for frames in range(1, L + 1):
        bank = remember(seen(frames=frames), M, update)
        assert bank.entries.shape[-2] == (1 if update == "mean" else min(frames, M))
        assert torch.equal(bank.counts.sum(-1), torch.full((2, 3), frames, dtype=torch.float64))


@pytest.mark.parametrize("update", ["weighted", "mean"])
def test_the_mean_weighted_by_counts_is_that_of_all_frames(update: str) -> None:
    bank = remember(seen(), M, update)
    mean = (bank.counts[..., None] * bank.entries).sum(-2) / L
    torch.testing.assert_close(mean, seen().mean(-2))


def test_a_plain_merge_forgets_how_much_an_entry_stands_for() -> None:
    bank = remember(seen(), M, "merge")
    mean = (bank.counts[..., None] * bank.entries).sum(-2) / L
    assert not torch.allclose(mean, seen().mean(-2), atol=1e-3)


@pytest.mark.parametrize("update", ["weighted", "merge", "fifo"])
def test_nothing_is_lost_before_a_bank_is_full(update: str) -> None:
    bank = remember(seen(), L, update)
    assert torch.equal(bank.entries, seen())
    assert torch.equal(bank.counts, torch.ones(2, 3, L, dtype=torch.float64))


def test_first_in_first_out_keeps_the_last() -> None:
    bank = remember(seen(), M, "fifo")
    assert torch.equal(bank.entries, seen()[..., -M:, :])


def test_equal_neighbours_become_themselves() -> None:
    frames = seen(frames=M)
    twice = torch.cat([frames[..., :2, :], frames[..., 1:, :]], dim=-2)
    for weighted in (False, True):
        counts = torch.ones(twice.shape[:-1], dtype=torch.float64)
        merged = merge_most_alike(Bank(twice, counts), weighted=weighted)
        torch.testing.assert_close(merged.entries, frames)
        assert torch.equal(merged.counts, torch.tensor([1.0, 2, 1, 1]).double().expand(2, 3, M))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_merge_is_what_a_loop_does(weighted: bool) -> None:
    """And each stream of each video merges where it is alike itself."""
    bank = Bank(seen(), torch.arange(1.0, L + 1).double().expand(2, 3, L))
    merged = merge_most_alike(bank, weighted=weighted)
    places = set()
    for video in range(2):
        for stream in range(3):
            entries, counts = (list(x[video, stream]) for x in (bank.entries, bank.counts))
            alike = [F.cosine_similarity(*pair, dim=0) for pair in pairwise(entries)]
            k = int(np.argmax(alike))
            places.add(k)
            share = counts[k] / (counts[k] + counts[k + 1]) if weighted else 0.5
            entries[k : k + 2] = [share * entries[k] + (1 - share) * entries[k + 1]]
            counts[k : k + 2] = [counts[k] + counts[k + 1]]
            torch.testing.assert_close(merged.entries[video, stream], torch.stack(entries))
            assert torch.equal(merged.counts[video, stream], torch.stack(counts))
    assert len(places) > 1


@pytest.mark.parametrize("update", UPDATES)
def test_banks_are_the_same_mapped_over_runs(update: str) -> None:
    def both(frames: Tensor) -> tuple[Tensor, Tensor]:
        bank = remember(frames, M, update)
        return bank.entries, bank.counts

    runs = torch.stack([seen(seed) for seed in range(3)])
    entries, counts = torch.func.vmap(both)(runs)
    for run, frames in enumerate(runs):
        alone = remember(frames, M, update)
        assert torch.equal(entries[run], alone.entries)
        assert torch.equal(counts[run], alone.counts)
