"""What a run will cost, found out by a few steps of it on made-up features."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pcmci.cache.store import Store
from pcmci.heads.head import Head
from pcmci.heads.training.features import Batch
from pcmci.heads.training.fit import build_model, fit_together
from pcmci.heads.training.recipe import Recipe

STEPS = 3
"""That are timed, after one that is not."""
STATES = 5
"""Copies of the parameters: themselves, gradients, AdamW's two moments, the best epoch's."""
BACKWARD = 2
"""What a backward pass needs of what the forward pass kept, at most."""


class _MadeUpFeatures:
    """Random numbers of a store's shapes."""

    kind = "made up"

    def __init__(self, store: Store, labels: str, weights: bool, device: torch.device) -> None:
        spec = store.spec
        self._shapes = {"vlm": spec.vlm, "video": spec.video}
        self._weights = (len(spec.labels(labels)), spec.vlm.tokens) if weights else None
        self._device = device

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor | None]:
        vlm, video = (
            torch.randn(size, encoder.tokens, encoder.width, device=self._device)
            for encoder in self._shapes.values()
        )
        weights = None
        if self._weights:
            weights = torch.rand(size, *self._weights, device=self._device).softmax(-1)
        return vlm, video, weights

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield Batch(part, *self.draw(len(part)))


def seconds_of_a_step(
    store: Store, recipes: Sequence[Recipe], labels: str, device: torch.device
) -> float:
    """Of one step of a stack of runs. labels: `activity` or `steps`."""
    size = recipes[0].train.batch_size
    models = [_model(store, recipe, labels) for recipe in recipes]
    if not any(model.trained_parameters() for model in models):
        return 0.0
    features = _MadeUpFeatures(store, labels, _wants_weights(recipes[0]), device)
    targets = _targets(store, labels, size, device)
    configs = [dataclasses.replace(recipe.train, epochs=1) for recipe in recipes]

    def train(steps: int) -> float:
        rows = np.tile(np.arange(size), steps)
        began = time.perf_counter()
        fit_together(models, features, rows, targets, configs, precision=recipes[0].precision)
        return time.perf_counter() - began

    train(1)
    return train(STEPS) / STEPS


def bytes_of_a_run(store: Store, recipe: Recipe, labels: str) -> int:
    """Memory that one more run in a stack needs: its states, and what a step keeps."""
    size = recipe.train.batch_size
    model = _model(store, recipe, labels).train()
    device = torch.device("cpu")
    inputs = _MadeUpFeatures(store, labels, _wants_weights(recipe), device).draw(size)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        opinions = model.opinions(*inputs, model.draw(size, torch.Generator()))
        model.loss(opinions, _targets(store, labels, size, device))
    states = STATES * sum(p.numel() * p.element_size() for p in model.parameters())
    return states + BACKWARD * sum(kept.values())


def _wants_weights(recipe: Recipe) -> bool:
    return recipe.model.frozen_transport is not None


def _model(store: Store, recipe: Recipe, labels: str) -> Head:
    text, entities = store.text(labels), store.entities(labels)
    width = store.spec.video.width
    return build_model(recipe.model, text, width, recipe.train.seed, labels, entities)


def _targets(store: Store, labels: str, size: int, device: torch.device) -> Tensor:
    n = len(store.spec.labels(labels))
    if labels == "activity":
        return torch.zeros(size, dtype=torch.int64, device=device)
    return torch.zeros(size, n, device=device)
