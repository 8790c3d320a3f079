"""A wheel, and an editable installation, work from any folder without the checkout around them."""

import email
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from factories import write_observation

from sentinel import VERSION
from sentinel.config import ROOT

PIP = (sys.executable, "-P", "-m", "pip", "--quiet", "--disable-pip-version-check")


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """Run a command in a folder, without the variables of this process that would lead to the checkout."""
    unwanted = ("SENTINEL", "PYTHONPATH", "AETHERSCAN")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


def installed(place: Path, *what: str | Path) -> Path:
    """Install a package into a new environment that sees the other packages of this one; return its programs."""
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    own = next(place.glob("lib/python*/site-packages"))
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    given = ("--python", place / "bin" / "python", "install", "--no-deps", "--no-build-isolation", "--no-index")
    run(*PIP, *given, *what, cwd=place.parent)
    return place / "bin"


def test_an_installed_wheel_reads_files_from_another_folder_and_has_a_release_that_loads(
    wheel: Path, tmp_path: Path
) -> None:
    programs, folder = installed(tmp_path / "environment", wheel), tmp_path / "elsewhere"
    folder.mkdir()
    write_observation(folder / "one.h5")
    where = run(programs / "python", "-c", "import aetherscan; print(aetherscan.__file__)", cwd=folder)
    assert str(programs.parent) in where
    assert run(programs / "sentinel", "--version", cwd=folder).strip() == VERSION
    assert "example:\n  sentinel search" in run(programs / "sentinel", "search", "--help", cwd=folder)
    run(programs / "sentinel", "search", "one.h5", cwd=folder, status=1)  # one file is no cadence
    assert json.loads((folder / "found" / "run.json").read_text())["cadences"] == []
    assert re.search(r"(?m)^\* equinox +[0-9a-f]{64}$", run(programs / "sentinel", "models", "verify", cwd=folder))
    shown = yaml.safe_load(run(programs / "sentinel", "config", "show", cwd=folder))
    assert shown["state_dir"] == str(folder / "var")  # what is not packaged is in the current folder


def test_the_wheel_has_the_metadata_and_everything_that_is_no_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(f"sentinel-{VERSION}.dist-info/METADATA"))
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Version"] == VERSION == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert {"train", "postgres", "gpu"} <= set(metadata.get_all("Provides-Extra"))
    ours = [path for top in ("aetherscan", "sentinel") for path in (ROOT / top).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in ours if "__pycache__" not in path.parts}
    release = {f"sentinel/packaged/models/equinox/{path.name}" for path in (ROOT / "models" / "equinox").iterdir()}
    assert wanted | release | {"sentinel/packaged/config.yaml"} <= set(names)
    assert {"aetherscan/py.typed", "sentinel/py.typed"} <= wanted


def test_an_editable_installation_runs_the_checkout(tmp_path: Path) -> None:
    programs = installed(tmp_path / "environment", "--editable", ROOT)
    assert run(programs / "sentinel", "--version", cwd=tmp_path).strip() == VERSION
    shown = yaml.safe_load(run(programs / "sentinel", "config", "show", cwd=tmp_path))
    assert shown["state_dir"] == str(ROOT / "var")
