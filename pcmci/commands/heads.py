"""`pcmci heads`: what can be trained."""

from __future__ import annotations

from pcmci.commands.options import AsJson
from pcmci.commands.showing import print_json
from pcmci.heads.catalogue import HEADS, head_settings, shown_name


def heads(as_json: AsJson = False) -> None:
    """The heads, a line each; train-heads --head and ablate --heads take them by name.

    Example: pcmci heads
    """
    if as_json:
        print_json(
            {
                name: {
                    "about": entry.about,
                    "shown": shown_name(name),
                    "settings": list(head_settings(name)),
                }
                for name, entry in HEADS.items()
            }
        )
        return
    longest = max(map(len, HEADS))
    for name, entry in HEADS.items():
        after = f" (after {entry.after}; head only)" if entry.after else ""
        print(f"{name:{longest}}  {entry.about}{after}")
