"""What the clips of a video encoder are made of."""

from __future__ import annotations

UNIFORM, DENSE = WINDOWS = ("uniform", "dense")
"""`uniform`: a view's frames, cut up. `dense`: around each of them a clip of the length and pace
that the encoder was trained on."""
