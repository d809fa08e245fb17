"""Whoever has nothing yet, no data, no store, no run, no weights, is told what to type next."""

import re

import pytest
from test_cli import ALL

from pcmci.extract.encoders import reachable

STORE = "features/coin.zarr"
NOTHING_NEEDED = {("demo",), ("doctor",), ("encoders",), ("heads",), ("kitchen",)}
"""Commands that need nothing of the user's."""

TYPED = {
    ("extract",): [
        ["--dataset", "coin"],
        ["--dataset", "kitchen"],
        ["--dataset", "folder"],
        ["--dataset", "folder", "--videos", "films"],
    ],
    ("import",): [
        ["--dataset", "breakfast", "--name", "i3d", "--videos-from", "i3d"],
        ["--dataset", "breakfast", "--name", "i3d", "--videos-from", "."],
    ],
    ("train-heads",): [[], ["--dataset", "coin"], ["--features", STORE], ["--features", "s.h5"]],
    ("ablate",): [
        [],
        ["--dataset", "coin"],
        ["--dataset", "coin", "--encoders", "timesformer,x3d-m"],
        ["--features", STORE],
    ],
    ("report",): [["ablations/coin_1a2b3c4d"]],
    ("evaluate",): [["runs/coin"]],
    ("explain",): [["runs/coin", "film.mp4"]],
    ("runs",): [[], ["sweeps"]],
    ("predict",): [["runs/coin", "film.mp4"]],
    ("plant",): [[STORE, "planted.zarr"]],
    ("store", "info"): [[STORE]],
    ("store", "verify"): [[STORE]],
    ("store", "failures"): [[STORE]],
    ("store", "stats"): [[STORE]],
    ("store", "clean"): [[STORE]],
    ("store", "convert"): [[STORE, "features/coin.h5"]],
    ("store", "export"): [[STORE, "out"]],
}
"""What somebody would type first, in an empty folder."""


def test_every_command_is_either_tried_here_or_needs_nothing():
    """One that is added says here what it tells a beginner."""
    assert set(ALL) == set(TYPED) | NOTHING_NEEDED


@pytest.mark.parametrize(
    ("words", "arguments"),
    [(words, arguments) for words, some in TYPED.items() for arguments in some],
    ids=lambda part: " ".join(part) or "nothing",
)
def test_the_first_error_says_what_to_type_next(pcmci, tmp_path, monkeypatch, words, arguments):
    monkeypatch.chdir(tmp_path)
    answer = pcmci(*words, *arguments)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    _, _, following = answer.err.partition("next: ")
    named = re.findall(r"pcmci ([a-z]+(?:-[a-z]+)*)", following)
    assert named, answer.err
    assert {(name,) for name in named} <= set(ALL)


def test_weights_nobody_can_send_are_missed_at_once(pcmci, tmp_path, tiny_videos, monkeypatch):
    """Nobody knows the hub's name: nothing is asked again and again."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reachable, "_has_address", lambda endpoint: False)
    answer = pcmci(
        "extract", "--dataset", "folder", "--videos", tiny_videos,
        "--vlm", "kitchen", "--video-encoder", "vit-base",
    )  # fmt: skip
    assert answer.code == 2
    last = answer.err.splitlines()[-1]
    assert "could not be downloaded" in last
    assert "next: pcmci doctor" in last
    assert constants.HF_HUB_OFFLINE is False  # as it was


@pytest.mark.parametrize(
    ("endpoint", "proxies", "known"),
    [
        ("https://hub.invalid", {}, False),  # RFC 6761: nobody may ever have this name
        ("https://127.0.0.1:8000", {}, True),
        ("https://hub.invalid", {"https": "http://proxy:3128"}, True),  # the proxy would know
    ],
)
def test_a_hub_without_an_address_is_not_asked(monkeypatch, endpoint, proxies, known):
    def look_up(host, port):
        if host.endswith(".invalid"):
            raise reachable.socket.gaierror(reachable.socket.EAI_NONAME, "not known")
        return []

    monkeypatch.setattr(reachable.urllib.request, "getproxies", lambda: proxies)
    monkeypatch.setattr(reachable.socket, "getaddrinfo", look_up)
    assert reachable._has_address(endpoint) is known


def test_a_name_server_that_is_busy_just_now_is_no_reason_to_give_up(monkeypatch):
    def busy(host, port):
        raise reachable.socket.gaierror(reachable.socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(reachable.urllib.request, "getproxies", dict)
    monkeypatch.setattr(reachable.socket, "getaddrinfo", busy)
    assert reachable._has_address("https://huggingface.co")
