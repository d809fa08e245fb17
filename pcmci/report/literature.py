"""What others report on the same benchmarks, to stand under a table of ours: fractions.

None is comparable with another: backbones, protocols and what chose the epoch differ. Sources are
where the figure was read, which is not always the paper that it is of.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """One method's figures. backbone: with what was trained. source: where they were read. note:
    what else has to be known. Acc by data set; None where there is none."""

    method: str
    backbone: str
    breakfast: float | None
    coin: float | None
    source: str
    note: str = ""

    def on(self, dataset: str) -> float | None:
        """The Acc on a data set."""
        return {"breakfast": self.breakfast, "coin": self.coin}.get(dataset)


TEST_CHOSE = "the test set chose the epoch"
MAMBA, MALMM, VTM = "VideoMamba, table 6", "MA-LMM, table 2", "Learnable VTM, tables 3 and 4"

LITERATURE: tuple[Reported, ...] = (
    Reported("TSN", "", None, 0.734, MALMM),
    Reported("VideoGraph", "I3D, features", 0.695, None, MAMBA, "Learnable VTM prints 65.5"),
    Reported("Timeception", "3D-ResNet, features", 0.713, None, MAMBA),
    Reported("GHRM", "I3D, features", 0.755, None, MAMBA),
    Reported("FACT", "", 0.861, None, "HERMES, table 2"),
    Reported("ViS4mer", "Swin-B (Kinetics-600), features", 0.882, 0.884, MAMBA,
             f"{TEST_CHOSE}; 87.1 on COIN when run again"),
    Reported("Distant supervision", "TimeSformer (HowTo100M, wikiHow), features", 0.899, 0.900,
             MAMBA),
    Reported("TranS4mer", "", 0.903, 0.892, "HERMES, table 2"),
    Reported("S5", "Swin-B (Kinetics-600)", 0.901, 0.904, VTM),
    Reported("S5 with LSMCL", "Swin-B (Kinetics-600)", 0.907, 0.908, VTM),
    Reported("Learnable VTM", "Swin-B (Kinetics-600)", 0.913, 0.886, VTM),
    Reported("Turbo, 32 frames", "VideoMAE-B (Kinetics-400), end to end", 0.868, 0.823, MAMBA),
    Reported("Turbo, 32 frames", "VideoMAE-B (with HTM-AA), end to end", 0.913, 0.875, MAMBA),
    Reported("MA-LMM", "EVA-g, Vicuna-7B", 0.930, 0.932, MALMM, TEST_CHOSE),
    Reported("HERMES", "the family of MA-LMM", 0.952, 0.935, "HERMES, table 2"),
    Reported("VideoMamba-M, 32 frames", "masked pretraining, end to end", 0.979, 0.896,
             "its MODEL_ZOO.md", TEST_CHOSE),
    Reported("VideoMamba-M, 64 frames", "masked pretraining, end to end", 0.969, 0.904,
             "its MODEL_ZOO.md", TEST_CHOSE),
    Reported("HierarQ", "EVA-g, Vicuna-7B with LoRA", 0.974, 0.960, "notes on the paper",
             "PCMCI prints 97.18 and 94.78"),
    Reported("PCMCI", "CLIP frozen, TimeSformer trained", 0.9746, 0.9453, "its supplement"),
)  # fmt: skip
"""In the order of their figures on Breakfast, as far as they have one."""
