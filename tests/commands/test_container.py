"""`up --docker` says what is missing, checks before it starts, and passes on what the container may know."""

import os
import stat
from pathlib import Path

import pytest

from sentinel.commands import container
from sentinel.errors import SentinelError

DOCKER = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  "compose version") exit ${NO_COMPOSE:-0};;
  *" config check") exit ${CHECK:-0};;
  *" build") exit ${BUILD:-0};;
  *" exec "*) echo "${PROBE:-ok: all is well}"; exit ${PROBED:-0};;
  *" ps "*) echo c0ffee;;
  inspect*) echo "${RESTARTS:-0}";;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Put a stand-in for docker on the path; return a function that lists its calls."""
    program = tmp_path / "docker"
    program.write_text(DOCKER)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return lambda: [line.split(" ", 3)[-1] for line in (tmp_path / "calls").read_text().splitlines()]


def test_a_start_builds_checks_starts_and_names_the_next_commands(docker, monkeypatch):
    monkeypatch.setenv("SENTINEL_DATA", "/mnt/data")
    said = []
    assert container.up(said.append) == 0
    assert "new files in /mnt/data\nnext: docker compose exec sentinel ./sentinel.py demo" in said[-1]
    starts = [call.split()[0] for call in docker()[1:]]
    assert starts[:3] == ["build", "run", "up"]


def test_a_mistake_in_the_configuration_or_the_build_starts_nothing(docker, monkeypatch):
    monkeypatch.setenv("CHECK", "2")
    assert container.up(lambda _: None) == 2
    monkeypatch.setenv("BUILD", "1")
    with pytest.raises(SentinelError, match="the image was not built"):
        container.up(lambda _: None)
    assert not [call for call in docker() if call.startswith("up")]


def test_a_container_that_ends_again_and_again_fails_the_start_with_its_last_lines(docker, monkeypatch):
    monkeypatch.setenv("PROBED", "3")
    monkeypatch.setenv("RESTARTS", "3")
    said = []
    assert container.up(said.append) == 1
    assert said[-1] == "not ready: the container does not run"
    assert docker()[-1].startswith("logs ")


def test_docker_or_its_plugin_that_is_missing_is_named(docker, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_COMPOSE", "1")
    with pytest.raises(SentinelError, match="expected the compose plugin of docker, found none"):
        container.down()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(SentinelError, match="expected docker, found none on the path"):
        container.down()


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 8:1 / /mnt rw,relatime shared:5 - ext4 /dev/sda rw
31 30 8:2 / /mnt/own rw,relatime - ext4 /dev/sdb rw
32 30 8:3 / /mnt/slave rw,relatime master:2 - ext4 /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        ("/data", False),
        ("/mnt", True),
        ("/mnt/x/y", True),
        ("/mnt/own/x", False),
        ("/mnt/slave", True),
        ("/mnto", False),
    ],
)
def test_later_mounts_appear_in_the_container_where_the_engine_can_pass_them_on(folder, shared):
    assert container.is_shared(Path(folder), MOUNTS) is shared


def test_settings_and_secrets_are_passed_on_by_name_and_the_state_directory_is_not():
    shell = dict.fromkeys(
        ("SENTINEL__SEARCH__HIT_SNR", "SENTINEL__STATE_DIR", "PGPASSWORD", "HOME", "SENTINEL_CONFIG"), "x"
    )
    assert container.passed_on(shell) == {"SENTINEL__SEARCH__HIT_SNR": None, "PGPASSWORD": None}
