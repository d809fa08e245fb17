"""What was planted in a store's features, by draws that can be made again from what its spec says.

Every video draws a companion, a direction in feature space that means nothing:

    companion(v) := that of the label of v   with probability eta, of training or of the test
                    any of N, or none        else (none at all, where `otherwise` is `none`)

and x_l := x_l + scale · mean_l |x_l| · d_companion in the frames l that it stands in. Only draws of
`random()` and `permutation` of a stream of each video's own: neither the order in which videos are
written nor a run that was stopped changes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOBODY = -1
"""No companion."""

OTHERWISE = ("any", "none")

SHIFTED, NONE, WRONG, CAUSE = "shift-planted", "planted-none", "planted-wrong", "cause"
TWINS = (SHIFTED, NONE, WRONG, CAUSE)
"""The splits of twins of a planted store. `shift-planted`: the custom is broken, where it held by
what is drawn otherwise. `planted-none`: nobody is there. `planted-wrong`: the companion of the next
label. `cause`: another video, of another label, with the same companion in the same places."""


@dataclass(frozen=True)
class Planted:
    """A confounder that was planted in a store's features.

    array: `vlm` or `video`. share: of the frames (tokens). frames: as many. strength, test_strength
    : how often the companion is that of the label, in `train` and `val`, and elsewhere. scale: of
    the direction, by the mean length of the video's own frames. run: whether the frames follow each
    other. otherwise: see the module. bound: how much of a direction is the label's own text. split:
    the one that has twins. directions: sha256 of the vectors. source: fingerprint and content
    digest of the store it was made of.
    """

    array: str
    share: float
    frames: int
    strength: float
    test_strength: float
    scale: float
    run: bool
    otherwise: str
    bound: float
    seed: int
    split: str
    directions: str
    source: str

    @property
    def words(self) -> str:
        """One sentence for whoever meets such a store."""
        where = "in one run" if self.run else "scattered"
        return (
            f"PLANTED, not as extracted: in {self.array}, {self.frames} frames a video {where}, "
            f"strength {self.strength:g} in training and {self.test_strength:g} in the test, scale "
            f"{self.scale:g}"
        )


def draw(
    planted: Planted, row: int, label: int, labels: int, tokens: int, *, training: bool
) -> tuple[int, int, np.ndarray]:
    """What the video of a row of the source has: its companion, the one that it has where the
    custom is broken, and the places [frames] where it stands, ascending.

    label: of the video, -1 for none. labels: N. tokens: L.
    """
    rng = np.random.default_rng([planted.seed, row])
    held, pick, start = rng.random(), rng.random(), rng.random()
    other = NOBODY
    if planted.otherwise == "any":
        chosen = int(pick * (labels + 1))
        other = NOBODY if chosen == labels else chosen
    eta = planted.strength if training else planted.test_strength
    own = label if label >= 0 and held < eta else other
    if planted.run:
        first = int(start * (tokens - planted.frames + 1))
        places = np.arange(first, first + planted.frames)
    else:
        places = np.sort(rng.permutation(tokens)[: planted.frames])
    return own, other, places


def add(features: np.ndarray, places: np.ndarray, direction: np.ndarray, scale: float) -> None:
    """Plant in place. features: [views, L, D] float16, of one video. direction: [D] of length 1."""
    length = np.linalg.norm(features.astype(np.float32), axis=-1).mean()
    moved = features[:, places].astype(np.float32) + scale * length * direction
    features[:, places] = moved
