"""Documents and container files agree with the code: links exist, commands parse, versions are equal."""

import ast
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from aetherscan.search.candidates import Candidate, columns
from sentinel import cli
from sentinel.commands.candidates import export
from sentinel.config import SECRETS, load_config
from sentinel.store.queue import open_store
from sentinel.store.schema import candidate

ROOT = Path(__file__).resolve().parent.parent
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*/CARD.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICE = COMPOSE["services"]["sentinel"]
# Written so that this file does not match itself.
PRIVATE = r"/wor[k]/|/tmp/[w]/|/roo[t]/|/opt/(pyp[i]|wheel[s])|pypi[.]org|pythonhosted[.]org|--(extra-)?index-ur[l]"


def commands() -> list[tuple[str, str]]:
    lines = [(paper.name, line.strip("$ ")) for paper in PAPERS for line in paper.read_text().splitlines()]
    return [(name, line) for name, line in lines if line.startswith("./sentinel.py ")]


def words(line: str) -> list[str]:
    """Return the arguments of a command line, up to a comment, a pipe or the next command."""
    return re.split(r" [|>;&]", shlex.join(shlex.split(line, comments=True)[1:]).replace("'", ""))[0].split()


def parse(arguments: list[str]) -> None:
    try:
        _, unknown = cli.parser().parse_known_args(arguments)
    except SystemExit as answered:
        unknown = [answered.code] if answered.code else []
    assert unknown == [] or arguments[0] == "test", arguments


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_relative_links_and_named_paths_exist(paper: Path) -> None:
    text = paper.read_text()
    links = [paper.parent / link for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)]
    folders = "aetherscan|sentinel|models|tests|benchmarks|docs"
    named = [ROOT / path for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text)]
    assert [str(path) for path in [*links, *named] if not path.exists()] == []


@pytest.mark.parametrize(("paper", "line"), commands())
def test_commands_in_the_documents_are_commands_of_the_program(paper: str, line: str) -> None:
    parse(words(line))


def test_tracked_text_names_no_machine_and_no_package_index() -> None:
    command = ["git", "grep", "-I", "-n", "-E", PRIVATE]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode == 128:
        pytest.skip("not a git checkout")
    assert found.stdout == ""


def test_the_locks_have_every_package_that_the_project_asks_for_with_hashes() -> None:
    steps = {"service": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    assert {path.stem for path in ROOT.glob("requirements/*.txt")} == set(steps)
    versions: dict[str, str] = {}
    for step, wishes in steps.items():
        lock = re.sub(r"(?m)^ *#.*\n", "", (ROOT / f"requirements/{step}.txt").read_text())
        entries = re.findall(
            r"(?m)^([a-z0-9-]+)==([\w.]+)( ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", lock
        )
        assert len(entries) == lock.count("==") - sum(entry[2].count("==") for entry in entries)
        names = {re.split(r"[<>=\[ ]", wish)[0].lower().replace("_", "-") for wish in wishes}
        assert names - {"sentinel"} <= {name for name, *_ in entries}, step
        for name, version, marker, _ in entries:  # the steps are installed into one environment
            assert versions.setdefault(f"{name} {marker if 'python' in marker else ''}", version) == version


def test_the_image_has_one_pinned_python_that_the_project_supports() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)", DOCKERFILE, re.MULTILINE)
    assert {base for base, _ in stages} - {name for _, name in stages} == {"${SENTINEL_BASE}"}
    pinned = r"^ARG SENTINEL_BASE=python:3\.(\d+)\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$"
    minor = re.search(pinned, DOCKERFILE, re.MULTILINE)
    oldest, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert minor is not None
    assert int(oldest) <= int(minor[1]) < int(beyond)


def test_the_image_runs_the_service_as_an_ordinary_user_with_a_health_check() -> None:
    stages = re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
    assert re.findall(r"^USER (\S+)", stages[0], re.MULTILINE) == ["10001:10001"]
    final = [stage for stage in stages if re.match(r"base AS (serving|training)\n", stage)]
    assert [re.search(r"(?m)^USER", stage) for stage in final] == [None, None]  # they inherit it
    command = yaml.safe_load(re.search(r"^CMD (.+)", DOCKERFILE, re.MULTILINE)[1])
    assert command == SERVICE["command"]
    parse(command)
    parse(re.search(r"HEALTHCHECK.+\\\n +CMD \./sentinel\.py (\w+)", DOCKERFILE).groups())


def test_the_image_includes_the_code_and_the_configured_release_and_has_the_version_of_the_project() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in lines if line.startswith("!")}
    assert [name for name in sorted(admitted) if not (ROOT / name).exists()] == []
    release = load_config(ROOT / "config.yaml").release.relative_to(ROOT)
    assert {"sentinel.py", "sentinel", "aetherscan", "config.yaml", str(release)} <= admitted
    assert {path.split("/")[0] for path in re.findall(r"requirements/\S+\.txt", DOCKERFILE)} <= admitted
    assert SERVICE["image"] == f"sentinel:{PROJECT['version']}"


def test_the_container_can_write_nothing_but_its_state_and_opens_no_port() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    short = [volume for volume in SERVICE["volumes"] if isinstance(volume, str)]
    assert [volume for volume in short if not volume.endswith(":ro")] == ["state:/opt/sentinel/var"]
    assert all(volume["read_only"] for volume in SERVICE["volumes"] if isinstance(volume, dict))
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICE.get("ports", []))
    assert {"mem_limit", "pids_limit", "logging"} <= SERVICE.keys()  # one container cannot exhaust its host


def test_the_container_reads_the_token_from_a_file_that_is_empty_by_default() -> None:
    files = {name: path for name, path in SERVICE["environment"].items() if name.endswith("_FILE")}
    assert {name.removesuffix("_FILE") for name in files} <= set(SECRETS)
    assert list(files.values()) == [f"/run/secrets/{name}" for name in SERVICE["secrets"]]
    mounted = [COMPOSE["secrets"][name]["file"] for name in SERVICE["secrets"]]
    assert mounted == [f"${{{name}:-/dev/null}}" for name in files]


@pytest.mark.parametrize("unit", sorted(ROOT.glob("deploy/*.service")), ids=lambda unit: unit.name)
def test_the_systemd_units_are_valid_and_closed(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    here = re.sub(r"/opt/sentinel/(?:sentinel\.py|\.venv/bin/dask)", "/bin/true", unit.read_text())
    (tmp_path / unit.name).write_text(here)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in verified.stderr.splitlines() if unit.name in line] == []
    # 20 of 100: a web server with the defaults of systemd has 96.
    closed = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(tmp_path / unit.name)]
    examined = subprocess.run(closed, capture_output=True, text=True, check=False)
    assert examined.returncode == 0, examined.stdout


def test_the_configurations_of_the_observatory_are_valid(tmp_path: Path) -> None:
    paper = (ROOT / "docs" / "observatory.md").read_text()
    for name in ("config", "cluster"):
        (tmp_path / "config.yaml").write_text(paper.split(f"```yaml {name}\n")[1].split("```")[0])
        load_config(tmp_path / "config.yaml")
    assert "RestartPreventExitStatus=2" in (ROOT / "deploy" / "sentinel.service").read_text()  # that of a ConfigError


def test_every_situation_in_the_document_names_a_test_that_holds_it() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text().partition("\n| situation |")[2]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines()[2:] if line.startswith("| ")]
    named = [row[2].strip("` ") for row in rows if not row[0].startswith("**")]
    tests = {name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"\ndef (\w+)", path.read_text())}
    assert len(named) > 40
    assert [name for name in named if name not in tests] == []


def documented_columns() -> list[tuple[str, str, set[str], str]]:
    lines = (ROOT / "docs" / "candidates.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return [(name.strip("`"), unit, set(places.split()), meaning) for name, unit, places, meaning in rows]


def test_the_document_of_the_candidate_table_has_every_column_with_its_unit_and_no_other(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    export(store, tmp_path / "export.csv")
    store.engine.dispose()
    tables = {
        "search": set(columns([field.name for field in fields(Candidate)], 6)),
        "export": set((tmp_path / "export.csv").read_text().strip().split(",")),
        "store": set(candidate.c.keys()),
    }
    rows = documented_columns()
    assert len({name for name, *_ in rows}) == len(rows)
    for place, expected in tables.items():
        assert {name for name, _, places, _ in rows if place in places} == expected
    units = {"MHz", "Hz", "Hz/s", "Hz/s^2", "day", "arcmin", "1", "channel", "line", "candidate", "none"}
    units |= {"deg", "nHz", "cadence", "1/MHz"}
    for name, unit, places, meaning in rows:
        assert unit in units, name
        assert meaning, name
        assert places <= {*tables}, name
    for name, unit, *_ in rows:
        for ending, expected_unit in (("_mhz", "MHz"), ("_hz", "Hz"), ("_hz_s", "Hz/s"), ("_mjd", "day")):
            assert not name.endswith(ending) or unit == expected_unit, name


def test_the_picture_of_the_packages_is_drawn_from_the_import_contracts_and_the_document_names_each_package() -> None:
    drawing = runpy.run_path(str(ROOT / "benchmarks" / "draw_architecture.py"))
    assert drawing["PICTURE"].read_text() == drawing["svg"]()
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = [f"{top}/{name}" for top, rows in drawing["layers"]().items() for row in rows for name in row]
    assert len(packages) > 20
    assert [name for name in packages if f"`{name}/`" not in text and f"`{name}.py`" not in text] == []


def public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)


def argument_names(function: ast.FunctionDef) -> list[str]:
    signature = function.args
    names = [argument.arg for argument in (*signature.posonlyargs, *signature.args, *signature.kwonlyargs)]
    names += [f"*{signature.vararg.arg}"] if signature.vararg else []
    return [name for name in names if name not in {"self", "cls"} and not name.strip("*").startswith("_")]


def test_every_public_function_with_four_or_more_arguments_describes_each_of_them() -> None:
    checked, missing = 0, []
    for path in sorted([*ROOT.glob("aetherscan/**/*.py"), *ROOT.glob("sentinel/**/*.py")]):
        for function in public_functions(ast.parse(path.read_text()).body):
            if len(names := argument_names(function)) < 4:
                continue
            checked += 1
            described = (ast.get_docstring(function) or "").partition("\nArgs:\n")[2]
            lost = [name for name in names if not re.search(rf"^    {re.escape(name)}: \S", described, re.MULTILINE)]
            missing += [f"{path.relative_to(ROOT)}: {function.name}: {', '.join(lost)}"] if lost else []
    assert checked > 40
    assert missing == []
