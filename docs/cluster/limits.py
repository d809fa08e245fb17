"""Reckons, measures nothing: at how many GPUs each part of a cluster's extraction is full.

    python docs/cluster/limits.py docs/cluster/limits.json

The file's `measured` are from benchmarks/cluster_limits.py and say on which machine; its `assumed`
are nobody's measurement. Put your own numbers in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    print(table(given["measured"], given["assumed"]))


def table(measured: dict[str, Any], assumed: dict[str, Any]) -> str:
    """Markdown: a line a part, a column a GPU."""
    gpus = {
        name: assumed["share of peak"] * peak / assumed["TFLOP a video"]
        for name, peak in assumed["peak, TFLOP/s"].items()
    }
    parts = {
        "the one writer": measured["writer, videos/s"],
        "features to the client, tasks of 16": measured["gather, videos/s in tasks of 16"],
        "features to the client, tasks of 4": measured["gather, videos/s in tasks of 4"],
        "handing out, tasks of 16": 16 * measured["scheduler, empty tasks/s"],
        f"a network of {assumed['network, Gbit/s']} Gbit/s at the client": (
            assumed["network, Gbit/s"] * 1e9 / 8 / measured["bytes a video, sent"]
        ),
    }
    rows = [
        ["RECKONED, not measured", "videos/s at most", *(f"full at {name}s" for name in gpus)],
        ["---"] * (2 + len(gpus)),
        ["one GPU", "", *(f"{rate:.0f} videos/s" for rate in gpus.values())],
    ]
    for part, limit in parts.items():
        rows.append([part, f"{limit:,.0f}", *(f"{limit / rate:.1f}" for rate in gpus.values())])
    seconds = assumed["decoding, processor seconds a video"]
    cores = (f"{rate * seconds:.0f} cores a GPU" for rate in gpus.values())
    rows.append([f"decoding at {seconds} s of a core", "", *cores])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
