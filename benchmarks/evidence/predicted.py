"""What the proofs predict before anything is trained: the contours that phase diagrams have."""

from __future__ import annotations

import math

import numpy as np

from evidence.heads import UNIFORM
from evidence.world import ACTIVITIES, STEPS_A_VIDEO, STRENGTH, WIDTH, Knobs
from pcmci.heads.config import ModelConfig


def cosine_gap(pre: float, noise: float = Knobs("h").noise) -> float:
    """delta: how much nearer to its label's text a frame is for its companion, in cosine.

    A frame e_s + a b + noise has the squared length 1 + a^2 + D sigma^2, a text that holds five
    steps and pre times b the squared length 1 + pre^2.
    """
    text = math.sqrt(1 + pre**2)
    plain = 1 + WIDTH * noise**2
    step, a = 1 / math.sqrt(STEPS_A_VIDEO), STRENGTH["h"]
    return (step + a * pre) / (text * math.sqrt(plain + a**2)) - step / (text * math.sqrt(plain))


def weight_gain(rho: np.ndarray | float, delta: float) -> np.ndarray:
    """g = rho e^(kappa delta) / (rho e^(kappa delta) + 1 - rho), kappa = 2 / temperature (P3)."""
    odds = math.exp(2 * delta / ModelConfig().transport.temperature)
    return np.asarray(rho) * odds / (np.asarray(rho) * odds + 1 - np.asarray(rho))


def evidence(eta: np.ndarray | float) -> np.ndarray:
    """What a custom of strength eta is worth to who knows the joint distribution, in logits:
    log P(custom | label) / P(another one | label)."""
    other = (1 - np.asarray(eta)) / ACTIVITIES
    return np.log((np.asarray(eta) + other) / other)


def difference(head: str, eta: np.ndarray, rho: np.ndarray, pre: float) -> np.ndarray | None:
    """The difference of CDE to a mean of the frames, if what passes is used for what it is worth:
    evidence times the difference of gains. [eta, rho] broadcast; None where no proof gives one."""
    passes = weight_gain(rho, cosine_gap(pre))
    gains = {"ich": passes - rho, "ich, contrast": passes - 2 * rho, UNIFORM: 0 * rho}
    return evidence(eta) * gains[head] if head in gains else None
