"""Random weights are the seed's in every process, and using them says nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import test_blip
import test_clip
import test_tubelets
import test_vit

from pcmci.extract.encoders import load_video_encoder, load_vlm

LOADS = {"load_vlm": load_vlm, "load_video_encoder": load_video_encoder}

ELSEWHERE = """
import json, sys, torch
from pcmci.extract import encoders

for load, name, clip in json.loads(sys.argv[1]):
    encoder = getattr(encoders, load)(name, "random:0", device="cpu")
    encoder.encode(torch.zeros(clip, dtype=torch.uint8))
    if load == "load_vlm":
        encoder.encode_text(["a", "a b"])
    print(encoder.spec.sha256)
"""
"""One process for every family: importing their libraries takes longer than all else."""


def written(path: Path, raw: object) -> str:
    path.write_text(json.dumps(raw))
    return str(path)


def test_a_seed_gives_the_same_bits_anywhere_and_nothing_is_said(tmp_path: Path) -> None:
    frame, clip = (2, 1, 32, 32, 3), (2, 4, 32, 32, 3)
    blips = [test_blip.written(tmp_path / family, family) for family in test_blip.FAMILIES]
    cases = [
        ("load_vlm", written(tmp_path / "clip.json", test_clip.CONFIG), frame),
        *(("load_vlm", str(config), frame) for config in blips),
        ("load_video_encoder", written(tmp_path / "vit.json", test_vit.config_of("cls")), frame),
        *(
            ("load_video_encoder", written(tmp_path / f"{family}.json", raw), clip)
            for family, raw in test_tubelets.TINY.items()
        ),
        ("load_video_encoder", "timesformer-tiny", (1, 8, 32, 32, 3)),
    ]
    here = [LOADS[load](name, "random:0", device="cpu").spec.sha256 for load, name, _ in cases]
    assert len(set(here)) == len(cases)
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(cases)]
    other = subprocess.run(command, capture_output=True, text=True)
    assert (other.stdout.split(), other.stderr) == (here, "")
