"""The recipes of docs/cluster: as far as a machine without SLURM and Kubernetes can follow them."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer

from pcmci import cli
from pcmci.cache.store import open_store

HOME = Path(__file__).parents[1]
RECIPES = HOME / "docs" / "cluster"
PAGES = ("README.md", "slurm.py", "slurm.sh")

SRUN = """#!/usr/bin/env bash
# A stand-in: as many tasks as SLURM would start, all of them here.
while [[ $1 == --* ]]; do shift; done
for (( task = 0; task < SLURM_NTASKS; task++ )); do "$@" & done
trap 'kill $(jobs -p)' TERM
wait  # ended by the signal
wait
"""


def commands(text: str) -> list[list[str]]:
    """The words of every `pcmci …` that is written in a block or between back quotes."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"`(pcmci [a-z][^`\n]+)`", joined)
    found += re.findall(r"^\s*(?:now: )?(pcmci [a-z][^`\n\"]+)$", joined, re.MULTILINE)
    found += [
        f"pcmci {rest}"
        for rest in re.findall(r"slurm\.sh (extract [^`\n]+)$", joined, re.MULTILINE)
    ]
    return [shlex.split(one, comments=True) for one in found]


def written_commands() -> list[list[str]]:
    return [one for page in PAGES for one in commands((RECIPES / page).read_text())]


def check(words: list[str]) -> None:
    """Raises where the program has no such command or option, or takes no such value."""
    program = typer.main.get_command(cli.app)
    _, name, *arguments = words
    command = program.get_command(None, name)
    assert command is not None, words
    arguments = ["coin" if one == "…" else one for one in arguments]
    if "--dataset" not in arguments:
        arguments += ["--dataset", "coin"]  # where the text is about something else
    command.make_context(name, arguments)


def test_commands_that_are_written_have_these_options():
    written = written_commands()
    assert len(written) >= 6
    for words in written:
        check(words)
    assert any("--scheduler" in words for words in written)


def test_a_command_with_another_option_would_be_noticed():
    with pytest.raises(Exception, match="No such option"):
        check(["pcmci", "extract", "--dataset", "coin", "--schedulers", "x"])


# --- SLURM ----------------------------------------------------------------------------------------


def test_the_batch_script_is_bash_and_asks_for_what_a_worker_needs():
    subprocess.run(["bash", "-n", RECIPES / "slurm.sh"], check=True)
    asked = re.findall(r"^#SBATCH (\S+)", (RECIPES / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--ntasks=8", "--gpus-per-task=1", "--cpus-per-task=10"} <= set(asked)


def test_the_batch_script_runs_to_a_store_like_a_local_one(
    tmp_path, pcmci, tiny_videos, tiny_encoders
):
    pytest.importorskip("distributed")
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    paths = [tmp_path / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    arguments = ["extract", "--dataset", "folder", "--videos", str(tiny_videos), "--frames", "8"]
    for name, value in tiny_encoders.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(map(str, paths)),
        "PYTHONPATH": str(HOME),
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": "17",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "NTHREADS": "1",
        "INTERFACE": "lo",
    }
    far, near = tmp_path / "far.zarr", tmp_path / "near.zarr"
    done = subprocess.run(
        ["bash", RECIPES / "slurm.sh", *arguments, "--out", str(far)],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stderr or "1 workers" in done.stderr
    assert not (tmp_path / "scheduler-17.json").exists()

    assert pcmci(*arguments, "--out", near).code == 0
    with open_store(far) as one, open_store(near) as other:
        assert one.spec == other.spec
        np.testing.assert_array_equal(one.status, other.status)
        for name in ("vlm", "video"):
            np.testing.assert_array_equal(one.read(name), other.read(name))


@pytest.fixture
def slurm():
    """docs/cluster/slurm.py, imported."""
    pytest.importorskip("dask_jobqueue", reason="the extra `cluster` is not installed")
    spec = importlib.util.spec_from_file_location("slurm_recipe", RECIPES / "slurm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "wanted", "unwanted"),
    [
        (
            "--partition gpu --before 'module load cuda'",
            ["#SBATCH -p gpu", "#SBATCH --gpus=1", "#SBATCH --cpus-per-task=10", "--nthreads 2",
             "module load cuda"],
            "nothing",
        ),
        (
            "--gpus 0 --cores 16 --memory 64GiB --account me --walltime 01:00:00",
            ["#SBATCH --cpus-per-task=16", "--nthreads 16", "#SBATCH --mem=64G", "#SBATCH -A me",
             "#SBATCH -t 01:00:00"],
            "--gpus",
        ),
    ],
)  # fmt: skip
def test_the_job_of_a_worker(slurm, tmp_path, arguments, wanted, unwanted):
    here = ["--logs", str(tmp_path), "--scheduler-file", str(tmp_path / "s.json")]
    options = slurm.parser().parse_args([*shlex.split(arguments), *here, "--dashboard", ":0"])
    with slurm.make_cluster(options) as cluster:
        assert (tmp_path / "s.json").exists()
        script = cluster.job_script()
        address = cluster.scheduler_address
    for line in [*wanted, "--nanny", address, sys.executable]:
        assert line in script
    assert unwanted not in script
    # Dask takes the last one.
    assert script.rindex("--memory-limit 0") == script.rindex("--memory-limit")


def test_jobs_are_asked_for_as_long_as_all_workers_are_busy(slurm):
    """Dask's own rule would stay at one worker here: three tasks are no load for eight threads."""
    from distributed import Client, LocalCluster

    from pcmci.cluster.dispatch import Dispatcher

    with (
        LocalCluster(
            n_workers=0, processes=False, threads_per_worker=8, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.adapt(
            Adaptive=slurm.AsLongAsAllAreBusy,
            minimum=1,
            maximum=3,
            interval="100ms",
            wait_count=100,
        )
        dispatcher = Dispatcher(client, doze, int, lambda answer: "", token="adaptive")
        for _ in dispatcher.run(range(100_000)):
            if len(dispatcher.members) == 3:
                break
        assert len(dispatcher.members) == 3


def doze(items):
    time.sleep(0.1)


# --- Kubernetes -----------------------------------------------------------------------------------


def documents() -> dict[str, dict]:
    """Of kubernetes.yaml, by kind."""
    yaml = pytest.importorskip("yaml")
    found = list(yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text()))
    assert len(found) == 3
    return {one["kind"]: one for one in found}


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskAutoscaler"])
def test_the_resources_are_what_the_operator_takes(kind):
    operator = pytest.importorskip("dask_kubernetes", reason="the extra `cluster` is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    import yaml

    charts = Path(operator.__file__).parent / "operator" / "deployment" / "helm"
    (file,) = charts.glob(f"*/crds/{kind.lower()}.yaml")
    (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    document = documents()[kind]
    jsonschema.validate(document, schema)
    document["spec"]["maximun"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maximun"):
        jsonschema.validate(document, schema)


def closed(schema: object) -> object:
    """The same with no other keys than those that it names: a slip of the pen shall not pass."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and "type" in made:
        more = {"apiVersion": {}, "kind": {}, "metadata": {}}
        made["properties"] = more | made["properties"]
        made.setdefault("additionalProperties", False)
    return made


def test_scheduler_and_service_are_laid_out_as_the_operator_does():
    laid_out = pytest.importorskip("dask_kubernetes.operator").make_cluster_spec("pcmci")["spec"]
    spec = documents()["DaskCluster"]["spec"]
    assert spec["scheduler"]["service"] == laid_out["scheduler"]["service"]
    (container,) = spec["scheduler"]["spec"]["containers"]
    (wanted,) = laid_out["scheduler"]["spec"]["containers"]
    for key in ("ports", "readinessProbe", "livenessProbe"):
        assert container[key] == wanted[key]


def test_workers_and_client_fit_together():
    found = documents()
    (worker,) = found["DaskCluster"]["spec"]["worker"]["spec"]["containers"]
    (client,) = found["Job"]["spec"]["template"]["spec"]["containers"]
    (scheduler,) = found["DaskCluster"]["spec"]["scheduler"]["spec"]["containers"]
    assert worker["image"] == client["image"] == scheduler["image"]
    assert worker["envFrom"] == client["envFrom"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert found["DaskAutoscaler"]["spec"]["minimum"] == 1
    assert found["DaskAutoscaler"]["spec"]["cluster"] == found["DaskCluster"]["metadata"]["name"]
    check(client["args"])


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_dask_has_the_options_of_the_pods(role):
    pytest.importorskip("distributed")
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    (container,) = documents()["DaskCluster"]["spec"][role]["spec"]["containers"]
    command = {"scheduler": scheduler, "worker": worker}[role]
    assert container["args"][:2] == ["dask", role]
    command.make_context(role, container["args"][2:], resilient_parsing=True)
