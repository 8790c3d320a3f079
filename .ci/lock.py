#!/usr/bin/env python3
"""Write requirements/*.txt: the versions and the hashes of the packages of each step of the set-up. Needs uv.

Options are passed on: `.ci/lock.py --upgrade`, or `--upgrade-package numpy`. Without them, the versions in
the present files are kept where pyproject.toml allows them. All steps are resolved together, for every platform and
Python that the project supports, so that they agree on the version of each package.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEPS = {"service": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
FOLDER = ROOT / "requirements"


def main() -> None:
    """Resolve all steps together, then write the packages of each step at these versions."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        every = Path(folder) / "every.txt"
        present = {line for path in FOLDER.glob("*.txt") for line in path.read_text().splitlines() if "==" in line}
        every.write_text("\n".join(line.rstrip(" \\") for line in sorted(present)))  # versions to keep
        resolve([wish for step in STEPS for wish in wishes(step)], every, sys.argv[1:])
        for step in STEPS:
            given = ["--constraint", str(every), "--generate-hashes", "--custom-compile-command", ".ci/lock.py"]
            (FOLDER / f"{step}.txt").unlink(missing_ok=True)
            resolve(wishes(step), FOLDER / f"{step}.txt", given)


def wishes(step: str) -> list[str]:
    """List the requirements of a step, with those of the extras that it includes (`sentinel[train]`)."""
    own = []
    for wish in STEPS[step]:
        inner = re.fullmatch(r"sentinel\[([\w,-]+)\]", wish)
        own += [part for name in inner[1].split(",") for part in wishes(name)] if inner else [wish]
    return own


def resolve(requirements: list[str], output: Path, options: list[str]) -> None:
    """Write the locked closure of `requirements`."""
    command = ["uv", "pip", "compile", "-", "--quiet", "--universal", "--python-version", "3.11", "--no-annotate"]
    command += ["--no-emit-index-url", "--output-file", str(output), *options]
    subprocess.run(command, input="\n".join(requirements), text=True, check=True)


if __name__ == "__main__":
    main()
