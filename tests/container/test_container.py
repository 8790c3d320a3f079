"""The container in a real engine: `./sentinel.py test --container`. The tests are steps of one story, in this order."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sentinel.config import ROOT
from sentinel.injection.tone import write_sky

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]
HERE = Path(__file__).parent
BASE = re.search(r"^ARG SENTINEL_BASE=([^\s@]+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
"""Without the digest, which only an image from the registry has."""
USER = 10001
LARGEST = 1.5e9
READY = "^(ok|warning)"
"""Without a network, the message of the demo waits, which is a warning."""
PROJECT, IMAGE = "sentinel-test", "sentinel:test"
"""Names of their own: the engine may run a service."""
CONTAINER = f"{PROJECT}-sentinel-1"
CODE = ("sentinel.py", "pyproject.toml", "requirements", "config.yaml", "LICENSE", "aetherscan", "sentinel", "models",
        "Dockerfile", "docker-compose.yml", ".dockerignore")  # fmt: skip


def can_start_engine() -> bool:
    wanted = ("apt-get", "pip")
    return (
        os.geteuid() == 0 and all(map(shutil.which, wanted)) and Path("/etc/apt/sources.list.d/debian.sources").exists()
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Return the environment of clients of an engine: the machine's, or one that is started for these tests."""
    if subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False).returncode == 0:
        yield dict(os.environ)
        return
    if not can_start_engine():
        pytest.skip("no Docker engine with compose runs here, and only root on Debian can start one")
    work = tmp_path_factory.mktemp("engine")
    started = subprocess.run([HERE / "engine.sh", work, BASE], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"no Docker engine here: {started.stderr.strip()[-300:]}")
    clients = dict(part.split("=", 1) for part in shlex.split(started.stdout)[1:])
    yield {**os.environ, **clients, "SENTINEL_BASE": BASE}
    pid = int((work / "docker.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.2)


class Story:
    """A checkout made with a strict umask, its container, and a folder of recordings that belongs to somebody else."""

    def __init__(self, place, engine):
        self.checkout, self.incoming, token = place / "checkout", place / "incoming", place / "token"
        strict = os.umask(0o077)
        self.checkout.mkdir()
        for name in CODE:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.checkout / name)
        os.umask(strict)
        (self.checkout / "config.yaml").chmod(0o644)  # it is mounted
        self.incoming.mkdir(mode=0o755)
        os.chown(self.incoming, 1234, 1234)
        for options in (("--bind", self.incoming), ("--make-shared",)):  # mounts are shared where systemd runs
            subprocess.run(["mount", *options, self.incoming], check=True)
        token.write_text("xoxb-secret")
        token.chmod(0o400)
        os.chown(token, USER, USER)
        network = {
            "build": {"network": "host"},
            "network_mode": "none",
            "image": IMAGE,
            "environment": {"SENTINEL_FAILPOINT": None},
        }
        (self.checkout / "docker-compose.override.yml").write_text(yaml.safe_dump({"services": {"sentinel": network}}))
        own = {"SENTINEL_DATA": self.incoming, "SLACK_BOT_TOKEN_FILE": token}
        own |= {
            "SENTINEL__INJECTIONS__CANARY_S": "0",
            "SENTINEL__SLACK__PER_HOUR": "17",
            "SLACK_CHANNEL": "C0123456789",
        }
        clean = {name: value for name, value in engine.items() if not name.startswith("SENTINEL")}
        own |= {
            "COMPOSE_PROJECT_NAME": PROJECT,
            **{name: engine[name] for name in ("SENTINEL_BASE",) if name in engine},
        }
        self.environment = clean | {name: str(value) for name, value in own.items()}

    def run(self, *command, check=True, **environment):
        """Run a command in the checkout and return its output."""
        ran = subprocess.run(
            command, cwd=self.checkout, env=self.environment | environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert not check or ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout[-6000:]}"
        return ran.stdout if check else ran

    def sentinel(self, *arguments, **options):
        """Run sentinel.py of the checkout on the host."""
        python = {"PYTHONPATH": str(self.checkout)}
        return self.run(sys.executable, "-P", "-m", "sentinel.cli", *arguments, **python, **options)

    def within(self, *command, **options):
        return self.run("docker", "compose", "exec", "-T", "sentinel", *command, **options)

    def until(self, pattern, *command):
        """Repeat a command in the container until its output matches."""
        end = time.monotonic() + 600
        while not re.search(pattern, output := self.within(*command, check=False).stdout):
            assert time.monotonic() < end, output
            time.sleep(1)
        return output


@pytest.fixture(scope="module")
def story(engine, tmp_path_factory):
    told = Story(tmp_path_factory.mktemp("story"), engine)
    told.run("docker", "compose", "down", "--volumes")  # of a run that was killed
    yield told
    told.run("docker", "compose", "down", "--volumes", check=False)
    subprocess.run(["umount", "--recursive", told.incoming], check=True)


def states(story):
    """Return the states of the recorded cadences."""
    counted = json.loads(story.within("./sentinel.py", "status", "--json", check=False).stdout)
    return counted["cadences"]


def test_a_configuration_that_the_container_cannot_use_is_told_before_it_starts(story):
    refused = story.sentinel("up", "--docker", check=False, SENTINEL__RELEASE="models/none")
    assert refused.returncode in {1, 2}
    assert re.search(r"models/none.*\n(.*\n)*not started: the container sees the mistakes above", refused.stdout)
    assert story.run("docker", "compose", "ps", "--all", "--quiet") == ""


def test_the_container_starts_from_a_checkout_with_a_strict_umask_without_a_network(story):
    began = time.monotonic()
    said = story.sentinel("up", "--docker")
    print(f"up: {time.monotonic() - began:.0f} s")
    assert "the container searches new files in" in said
    size = int(story.run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))
    print(f"image: {size / 1e9:.2f} GB")
    assert size < LARGEST


def test_it_runs_as_an_ordinary_user_on_a_root_that_cannot_be_written_with_no_capabilities(story):
    assert story.within("id", "-u").strip() == str(USER)
    status = story.within("cat", "/proc/1/status")
    assert re.findall(r"Cap(?:Eff|Bnd):\s+(\w+)", status) == ["0" * 16, "0" * 16]
    assert re.search(r"^overlay / overlay ro[, ]", story.within("cat", "/proc/mounts"), re.MULTILINE)


def test_a_disk_that_is_mounted_later_below_the_folder_is_seen_in_it(story):
    disk = story.incoming / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    (disk / "landed").touch()
    assert story.within("ls", "/opt/sentinel/data/incoming/disk").split() == ["landed"]
    subprocess.run(["umount", disk], check=True)


def test_settings_of_the_shell_and_the_secret_reach_it(story):
    shown = yaml.safe_load(story.within("./sentinel.py", "config", "show"))
    assert (shown["slack"]["per_hour"], shown["state_dir"]) == (17, "/opt/sentinel/var")
    read = "from sentinel.config import secret; print(secret('SLACK_BOT_TOKEN'))"
    assert story.within("python", "-c", read).strip() == "xoxb-secret"
    assert "xoxb" not in story.run("docker", "inspect", CONTAINER)


def test_a_dask_worker_that_is_started_elsewhere_finds_the_code_in_it(story):
    """As under Apptainer, without sentinel.py, which would put the code on the path."""
    story.within("sh", "-c", "cd /tmp && python -c 'import sentinel.workers.process'")


def test_a_demo_is_found_in_it_and_logs_says_where_they_are(story):
    assert "found" in story.within("./sentinel.py", "demo")
    assert "docker compose logs" in story.within("./sentinel.py", "logs", check=False).stdout
    assert '"program": "watcher"' in story.run("docker", "compose", "logs", "--no-log-prefix")


def test_no_second_service_starts_on_the_same_volume(story):
    second = story.run("docker", "compose", "run", "--rm", "-T", "sentinel", "up", check=False)
    assert second.returncode == 1
    assert re.search("runs as another user or in another container|held by process", second.stdout)
    story.until(READY, "./sentinel.py", "status", "--probe")


def test_a_search_that_a_stop_interrupts_is_done_after_the_restart_from_the_same_store(story):
    story.run("docker", "compose", "up", "--detach", "--no-build", SENTINEL_FAILPOINT="mid-read:sleep=15")
    story.until(READY, "./sentinel.py", "status", "--probe")
    write_sky(story.incoming, 5, ".h5", "LANDED")
    for path in story.incoming.iterdir():
        os.chown(path, 1234, 1234)
    story.until('"leased": 1', "./sentinel.py", "status", "--json")
    story.run("docker", "compose", "stop")
    assert story.run("docker", "inspect", "--format", "{{.State.ExitCode}}", CONTAINER).strip() == "0"
    story.run("docker", "compose", "up", "--detach", "--no-build")
    story.until("LANDED", "./sentinel.py", "candidates", "ls")
    assert "DEMO1" in story.within("./sentinel.py", "candidates", "ls")


def test_a_folder_that_its_owner_keeps_closed_is_named(story):
    story.incoming.chmod(0o700)
    told = story.run("docker", "compose", "run", "--rm", "-T", "sentinel", "doctor", check=False).stdout
    story.incoming.chmod(0o755)
    assert re.search(r"FAIL  roots: .*data/incoming.*(denied|cannot be read|unreadable)", told)


def test_a_change_of_the_code_rebuilds_no_packages(story):
    with (story.checkout / "sentinel" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    began = time.monotonic()
    built = story.run("docker", "compose", "--progress", "plain", "build")
    print(f"rebuild: {time.monotonic() - began:.0f} s")
    installs = re.search(r"(?m)^#(\d+) .*pip install", built)[1]
    assert re.search(rf"(?m)^#{installs} CACHED$", built), built[-3000:]


def test_down_removes_the_container_and_keeps_its_state(story):
    story.sentinel("down", "--docker")
    assert story.run("docker", "compose", "ps", "--all", "--quiet") == ""
    assert f"{PROJECT}_state" in story.run("docker", "volume", "ls")
