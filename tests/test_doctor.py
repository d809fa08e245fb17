"""The doctor looks at everything, says a line each, and leaves with 1 where something will not
work."""

import builtins
import io
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from pcmci.doctor import PARTS, codecs, compute, examine, hub, machine, packages

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_it_says_a_line_a_part_and_that_all_is_well(pcmci):
    answer = pcmci("doctor", "--json")
    checks = {check["name"]: check for check in answer.json["checks"]}
    failing = [name for name, check in checks.items() if check["verdict"] == "fails"]
    assert answer.json["works"] is (not failing)
    assert answer.code == bool(failing)
    parts = {"pcmci", "packages", "cores", "memory", "codecs", "decoding", "hub", "device"}
    assert parts | {"precision", "disk here", "disk weights", "extra hf"} <= set(checks)
    # of what does not depend on the machine
    for name in ("pcmci", "codecs", "decoding"):
        assert checks[name]["verdict"] == "ok", checks[name]


def test_what_fails_is_named_and_leaves_with_1(pcmci, monkeypatch):
    monkeypatch.setattr("pcmci.doctor.PARTS", (("machine", "cores"), ("codecs", "codecs")))
    monkeypatch.setattr(codecs, "_is_there", lambda name, mode: name != "hevc")
    answer = pcmci("doctor")
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("fails")
    assert "lacks hevc" in lines[1]
    assert lines[2] == "will not work: codecs"


def test_a_package_that_cannot_be_imported_does_not_stop_it(monkeypatch):
    real = builtins.__import__

    def without_psutil(name, *arguments, **more):
        if name == "psutil":
            raise ImportError("No module named 'psutil'")
        return real(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "pcmci.doctor.machine")
    monkeypatch.setattr(builtins, "__import__", without_psutil)
    monkeypatch.setattr("pcmci.doctor.PARTS", PARTS[3:5] + PARTS[8:9])
    found = list(examine())
    assert [finding.verdict for finding in found] == ["fails", "fails", "note"]


@pytest.mark.parametrize(
    ("need", "says"),
    [
        ("numpy", ""),
        ("numpy>=99", ">=99 is needed"),
        ("no-such-package-of-anybody", "is not installed"),
    ],
)
def test_a_requirement_is_met_or_says_why_not(need, says):
    found = packages.trouble(Requirement(need))
    assert says in found
    assert bool(found) == bool(says)


def test_an_extra_of_extras_asks_for_theirs():
    names = {need.name for need in packages._requirements("test")}
    assert {"transformers", "obstore", "pytest"} <= names
    assert "torch" not in names


@pytest.mark.parametrize(
    ("free", "verdict"), [(2**40, "ok"), (2 * 2**30, "note"), (2**20, "fails")]
)
def test_a_full_disk_is_found_before_it_is_needed(monkeypatch, tmp_path, free, verdict):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(2**41, 0, free))
    assert machine.disk("here", tmp_path / "not" / "there" / "yet").verdict == verdict


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "cache").write_text("")
    assert machine.disk("weights", tmp_path / "cache" / "hub").verdict == "fails"


def test_weights_lie_where_the_hub_keeps_them(monkeypatch, tmp_path):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert machine.weights_folder() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert machine.weights_folder() == tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "own"))
    assert machine.weights_folder() == tmp_path / "own"


@pytest.mark.parametrize("told", [True, False])
def test_offline_asks_nobody(monkeypatch, told):
    def asked(*_):
        raise AssertionError("a server was asked")

    monkeypatch.setattr(hub, "_problem", asked)
    if not told:
        monkeypatch.delenv("HF_HUB_OFFLINE")
    assert hub.hub(ask=told).verdict == "note"


def test_a_hub_that_says_nothing_is_waited_for_only_so_long(monkeypatch):
    began, ends = threading.Event(), threading.Event()

    def silent(*_, **__):
        began.set()
        ends.wait()
        return io.BytesIO()

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "SECONDS", 0.01)
    monkeypatch.setattr(hub.urllib.request, "urlopen", silent)
    found = hub.hub(ask=True)
    began.wait()  # before the real one is back in its place
    ends.set()
    assert found.verdict == "fails"
    assert "no answer" in found.says


def test_a_hub_that_refuses_answers(monkeypatch):
    def refuses(*_, **__):
        raise hub.urllib.error.HTTPError("https://hub", 403, "no", None, None)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub.urllib.request, "urlopen", refuses)
    monkeypatch.setattr(hub, "SECONDS", 600)
    assert hub.hub(ask=True).verdict == "ok"


def test_frames_that_are_lost_on_the_way_are_noticed(monkeypatch):
    monkeypatch.setattr(codecs, "_read", lambda film: codecs.FRAMES - 1)
    assert codecs.there_and_back().verdict == "fails"


def test_a_gpu_that_torch_does_not_see_fails(monkeypatch, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees one")
    (tmp_path / "version").write_text("")
    monkeypatch.setattr(compute, "NVIDIA", tmp_path / "version")
    assert next(compute.compute()).verdict == "fails"


def test_its_first_lines_wait_for_no_torch():
    code = (
        "import sys\nfrom pcmci.doctor import examine\n"
        "lines = examine()\nnext(lines), next(lines)\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_that_a_container_keeps_at_hand_are_free_memory(monkeypatch, tmp_path):
    gib = 2**30
    (tmp_path / "memory.max").write_text(f"{8 * gib}\n")
    (tmp_path / "memory.current").write_text(f"{int(7.9 * gib)}\n")
    (tmp_path / "memory.stat").write_text(f"anon {gib}\ninactive_file {6 * gib}\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(
        machine.psutil,
        "virtual_memory",
        lambda: SimpleNamespace(available=32 * gib, total=64 * gib),
    )
    assert "6.1 GiB free of 8.0 GiB" in machine.memory().says


def test_a_look_that_fails_in_whatever_way_is_a_finding(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pcmci.doctor.PARTS", (("machine", "disks"), ("machine", "cores")))
    monkeypatch.setattr(machine, "disks", homeless)
    failed, cores = examine()
    assert failed.verdict == "fails"
    assert "RuntimeError: Could not determine home directory." in failed.says
    assert cores.verdict == "ok"
