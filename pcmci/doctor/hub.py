"""Whether weights can be downloaded: the hub is asked once, and not for long."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from pcmci.doctor.findings import Finding

HUB = "https://huggingface.co"

SECONDS = 5
"""That the hub has to answer, the look-up of its name included."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables that say that no server is to be asked, as huggingface_hub reads them."""

YES = ("1", "ON", "YES", "TRUE")


def hub(ask: bool) -> Finding:
    """Whether the hub answers. ask: False, and nobody is asked."""
    for name in OFFLINE:
        if os.environ.get(name, "").upper() in YES:
            says = f"not asked, for {name} is set: weights of the cache alone"
            return Finding("hub", "note", says)
    if not ask:
        return Finding("hub", "note", "not asked (--offline)")
    address = os.environ.get("HF_ENDPOINT") or HUB
    problem = _problem(address)
    if problem:
        return Finding(
            "hub",
            "fails",
            f"{address} cannot be reached: {problem}; weights that are not in the cache have to be "
            "given as files, and HF_HUB_OFFLINE=1 says that this is meant",
        )
    return Finding("hub", "ok", f"{address} answers")


def _problem(address: str) -> str:
    """Why it does not answer, "" where it does. In a thread: nothing limits how long the look-up of
    a name takes."""
    found = [f"no answer in {SECONDS} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=SECONDS).close()
        except urllib.error.HTTPError:  # it says no, so it is there
            found[0] = ""
        except (OSError, ValueError) as error:
            found[0] = str(getattr(error, "reason", error))
        else:
            found[0] = ""

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return found[0]
