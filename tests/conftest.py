"""What several test files share: tiny videos, tiny encoders, stores of made-up features."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tensors of tests are tiny: a second thread of OpenMP only costs, and its spinning costs more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import av
import hypothesis
import numpy as np
import pytest

from pcmci import cli

pytest.register_assert_rewrite("encoder_contract", "store_contract")

# Nothing is timed here: a busy machine is no failure. Everyone's run tries the same examples, so
# that a change breaks a test and not the weather; HYPOTHESIS_PROFILE=search looks for new ones.
hypothesis.settings.register_profile("pcmci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "pcmci"))

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _numbers_as_python_has_them() -> None:
    """A test before this one may have computed: small numbers are then taken for 0 in all of this
    thread (`pcmci.device.choose_device`), where hypothesis looks for them."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


HANGS_SECONDS = 600
"""No test takes a tenth of it, on a machine that is busy with other work. One that waits for what
will not come is ended; nothing else in the tests says how long something may take."""


@pytest.fixture(autouse=True)
def _no_waiting_for_ever(request) -> Iterator[None]:
    def stop(number, frame):
        raise AssertionError(f"hangs: {HANGS_SECONDS} s are over")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS_SECONDS * (5 if request.node.get_closest_marker("long") else 1))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
    },
}
"""A model in open_clip's own configuration format, small enough for a test."""

TINY_VIT = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "num_classes": 5,
        "classifier": "head",
        "first_conv": "patch_embed.proj",
        "fixed_input_size": True,
    },
}
"""The same in timm's."""


def needs(path: Path) -> Path:
    """The path, or a skipped test where the shared data are not there."""
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """Eleven real clips."""
    return needs(DATA / "videos")


@pytest.fixture(scope="session")
def coin_json() -> Path:
    """All of COIN's annotation."""
    return needs(DATA / "coin" / "COIN.json.gz")


@pytest.fixture(scope="session")
def breakfast_annotations() -> Path:
    """Most of Breakfast's annotation."""
    return needs(DATA / "breakfast" / "segmentation_coarse")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """The config file of a tiny CLIP."""
    path = tmp_path_factory.mktemp("clip") / "tiny.json"
    path.write_text(json.dumps(TINY_CLIP))
    return path


@pytest.fixture(scope="session")
def tiny_encoders(tiny_clip) -> dict[str, str]:
    """Settings of an extraction with tiny random encoders."""
    return {
        "vlm": str(tiny_clip),
        "vlm_weights": "random:0",
        "video_encoder": "timesformer-tiny",
        "video_weights": "random:0",
    }


def write_video(path: Path, frames: int, seed: int, size: int = 48) -> None:
    """An H.264 film of moving noise, different for each seed."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.roll(base, index, axis=index % 2)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory) -> Path:
    """A `folder` data set: two classes, eight films, one that is no film and one that is not
    there."""
    folder = tmp_path_factory.mktemp("films")
    rows = ["video,split,activity,steps"]
    for index in range(8):
        write_video(folder / f"film{index}.mp4", frames=20 + index, seed=index)
        split = "test" if index % 4 == 3 else "train"
        steps = ["open;pour", "pour", "open;close", "close"][index % 4]
        rows.append(f"film{index}.mp4,{split},{'tea' if index % 2 else 'coffee'},{steps}")
    (folder / "broken.mp4").write_text("<html>not a film</html>")
    rows += ["broken.mp4,test,tea,pour", "lost.mp4,train,coffee,open"]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """The environment in which S3 is a server of this process."""
    from servers import s3_server

    with s3_server() as environment:
        yield environment


@pytest.fixture(scope="session")
def s3_service(s3_environment):
    """boto3's view of it: to make one takes longer than to make a bucket."""
    import boto3

    return boto3.resource(
        "s3",
        endpoint_url=s3_environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=s3_environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_environment["AWS_SECRET_ACCESS_KEY"],
        region_name=s3_environment["AWS_REGION"],
    )


@pytest.fixture
def s3(s3_service, s3_environment, monkeypatch, tmp_path) -> Iterator[str]:
    """The name of an empty bucket on a server of this process."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket = s3_service.create_bucket(Bucket="testing")
    yield bucket.name
    bucket.objects.all().delete()
    bucket.delete()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int:
    """Of `-n auto`: one more than there are cores, for half of the time a test waits for processes
    that it started; at most four, for each imports torch for itself."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min((len(affinity(0)) if affinity else os.cpu_count() or 1) + 1, 4)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def pcmci(capsys, monkeypatch):
    """Run a command in this process: `pcmci("store", "info", path)`."""

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pcmci", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        said = capsys.readouterr()
        return Answer(0 if code is None else int(code), said.out, said.err)

    return run
