"""Build the wheel, install it into an empty environment, and go to the demo's page with it alone.

    make wheel

The packages it needs are those of the environment that runs this; the checkout is out of sight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

HOME = Path(__file__).parents[1]
PACKAGE = "pcmci"
OF_THE_INSTALLATION = ("pcmci", "packages", "codecs", "decoding")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pcmci-wheel-") as folder:
        where = Path(folder)
        wheel = built(where)
        missing = files_of_the_package() - set(zipfile.ZipFile(wheel).namelist())
        if missing:
            sys.exit(f"{wheel.name} lacks {', '.join(sorted(missing))}")
        program = installed(wheel, where / "venv")
        check(program, where)
        run(program, "demo", "--videos", "30", "--epochs", "1", "--out", "demo", cwd=where)
        if not (where / "demo" / "index.html").is_file():
            sys.exit("the demo left no page")
    print(f"{wheel.name}: every file is in it, and its demo ends with a page")


def files_of_the_package() -> set[str]:
    """What git has of it: code, weights, templates."""
    listed = subprocess.run(
        ["git", "ls-files", PACKAGE], cwd=HOME, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.split("\n")) - {""}


def built(where: Path) -> Path:
    """From a copy of what git has: a build leaves folders behind, and finds an older one's."""
    source = where / "source"
    for name in [*files_of_the_package(), "pyproject.toml", "README.md", "LICENSE"]:
        if (HOME / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((HOME / name).read_bytes())
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--wheel-dir", where, source, cwd=where,
    )  # fmt: skip
    (wheel,) = where.glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """Its program, in a new environment that borrows every package but this one."""
    venv.create(folder, symlinks=True, with_pip=False)
    own = sysconfig.get_path("purelib", vars={"base": str(folder)})
    run(
        sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet",
        "--disable-pip-version-check", "--no-deps", wheel, cwd=folder,
    )  # fmt: skip
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(own, "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin" / PACKAGE


def check(program: Path, where: Path) -> None:
    """What pcmci doctor finds of the installation; of the machine it may find what it likes."""
    said = subprocess.run(
        [program, "doctor", "--offline", "--json"],
        cwd=where, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    if said.returncode not in (0, 1):
        sys.exit(f"{program} doctor: exit code {said.returncode}: {said.stderr}")
    for found in json.loads(said.stdout)["checks"]:
        if found["verdict"] == "fails":
            print(f"doctor: {found['name']}: {found['says']}")
            if found["name"] in OF_THE_INSTALLATION:
                sys.exit("the wheel does not work here")


def environment() -> dict[str, str]:
    """Nothing of the checkout, and of nobody's own folder of packages."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1"}


def run(*command: object, cwd: Path) -> None:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment())
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}")


if __name__ == "__main__":
    main()
