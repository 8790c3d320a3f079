"""A wrong size, URL, path, list or key is found when the configuration is checked, not when the service starts."""

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import update

from aetherscan.detector.release import MEASUREMENTS
from sentinel import cli
from sentinel.config import MOST_TEXT, ROOT, load_config
from sentinel.errors import ConfigError
from sentinel.store.queue import open_store
from sentinel.store.schema import meta


@pytest.mark.fault(60, promise="P5")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cluster: {memory_limit: 3 Gibs}", "cluster.memory_limit"),
        ("store: {url: my database}", "store.url: expected sqlite:////ABSOLUTE/PATH or postgresql://"),
        ("store: {url: 'mysql://db/x'}", "store.url: expected sqlite"),
        ("store: {url: 'sqlite://'}", "store.url: expected sqlite:////ABSOLUTE/PATH"),
        ("store: {url: 'sqlite:///x.db'}", "store.url: expected sqlite:////ABSOLUTE/PATH"),
        ("store: {url: 'sqlite:////x.db?mode=ro'}", "store.url: expected sqlite:////ABSOLUTE/PATH"),
        ("slack: {api_url: slack.com/api}", "slack.api_url: expected a URL: https://HOST"),
        ("web: {url: 'ftp://x'}", "web.url: expected a URL"),
        ("webhook: {url: 'http://'}", "webhook.url: expected a URL"),
        ("webhook: {url: 'https://[/x'}", "webhook.url: expected a URL"),
        ("releases_url: 'https://x:port/'", "releases_url: expected a URL"),
        ("state_dir: ~/state", "state_dir: Value error, expected a path without ~"),
        ("watch: {roots: [/data, ~]}", "watch.roots"),
        ("state_dir: what?", "state_dir: Value error, expected a path without ?"),
        ('picture_dir: "a\\0b"', "picture_dir: Value error, expected a path without null characters"),
        ('state_dir: "a\\udcffb"', "config.yaml"),
        ("cluster: {memory_limit: '3'}", "cluster.memory_limit: Value error, expected at least 500 MB"),
        ("cluster: {memory_limit: 0.4 GiB}", "cluster.memory_limit: Value error, expected at least 500 MB"),
        ("cluster: {memory_limit: '0'}", "cluster.memory_limit: Value error, expected at least 500 MB"),
        ("cluster: {workers: yes}", "cluster.workers: Value error, expected a number, found True"),
        ("web: {port: on}", "web.port: Value error, expected a number, found True"),
        ("lease_s: true", "lease_s: Value error, expected a number, found True"),
        ("lease_s: 0.5", "lease_s: Input should be greater than or equal to 1"),
        ("watch: {scan_s: 1.0e-9}", "watch.scan_s: Value error, expected at least 0.01 s"),
        ("watch: {look_again_s: '0.001'}", "watch.look_again_s: Value error, expected at least 0.01 s"),
        ("cluster: {scheduler: 'tcp://127.0.0.1:99999'}", "cluster: Value error, Port out of range 0-65535"),
        ("watch: {include: []}", "watch.include"),
        ("watch: {exclude: ['']}", "watch.exclude.0"),
        (
            'slack: {channel: "#general"}',
            "slack.channel: Value error, expected the id of a channel, such as C0123456789",
        ),
        ("slack: {channel: general}", "slack.channel: Value error, expected the id of a channel"),
        ("store: {url: 'postgresql+asyncpg://db/x'}", "store.url: expected sqlite"),
        ("store: {url: 'postgresql://db:port/x'}", "store.url: expected a URL"),
        ("state_dir: ''", "state_dir: Value error, expected a path, found ''"),
        ("watch: {roots: [/data, '']}", "watch.roots: Value error, expected a path"),
        ("lease_s: .inf", "lease_s"),
        ("lease_s: .nan", "lease_s"),
        ("search: {hit_snr: .inf}", "search.hit_snr"),
        ("lease_s: 1.0e+308", "lease_s: Value error, expected a finite number, less than 4294967296, found 1e+308"),
        (
            f"max_attempts: {2**63}",
            f"max_attempts: Value error, expected a finite number, less than {2**63}",
        ),
        (f"max_attempts: {'9' * 5000}", "config.yaml: cannot be read"),
        (f"max_attempts: 0x{'9' * 5000}", "max_attempts: Value error, expected a finite number"),
        ("release: 2001-99-99", "config.yaml: cannot be read: month must be in 1..12"),
        (f"search: {{coarse_channels: {10**30}}}", "search.coarse_channels: Value error, expected a finite number"),
        (f"cadence: {{scans: {10**30}}}", "cadence.scans: Value error, expected a finite number"),
        (f"beams: {{off_beams: [1, {10**30}]}}", "beams.off_beams: Value error, expected a finite number"),
        ("train: {rf_max_features: .nan}", "train.rf_max_features: Value error, expected a finite number"),
        ("train: {seed: 4294967296}", "train.seed: expected at least 0 and at most 4294967295"),
        ("lease_s: 1\nlease_s: 2", "expected each key once, found lease_s twice"),
        ("watch:\n  scan_s: 1\n  scan_s: 2", "found scan_s twice from line 2"),
        ("slack:\n  channel: #general\n", "expected the id of a channel, such as C0123456789, found #general"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(tmp_path, text, found):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.yaml")
    assert found in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", "9" * 30),
        ("num-samples-rf", "9" * 5000),
        ("vae-beta", "1e400"),
        ("retry-delay", "nan"),
        ("rf-max-features", "inf"),
        ("rf-seed", "4294967296"),
    ],
)
def test_a_number_that_a_training_cannot_use_is_one_line(monkeypatch, tmp_path, capsys, option, value):
    monkeypatch.setenv("SENTINEL__STATE_DIR", str(tmp_path))
    assert cli.main(["train", f"--{option}", value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{option.replace('-', '_')}: ")
    assert len(line) < 250


NO_ALLOCATION = """
max_attempts web.port search.coarse_channels search.polarization cadence.scans beams.on_beam beams.off_beams
slack.per_hour slack.pictures webhook.per_hour skyportal.per_hour skyportal.group_ids kafka.per_hour
train.rf_seed train.seed train.num_observations train.downsample_factor
train.num_training_rounds train.epochs_per_round train.step_easy_rounds train.step_hard_rounds
train.patience_threshold train.max_retries train.start_round
"""
"""Integers that become no number of processes or threads and no size in memory."""


def integers(section, prefix=""):
    """Yield the name and the value of each integer of the configuration, and of each that may be one."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if hasattr(type(value), "model_fields"):
            yield from integers(value, f"{prefix}{name}.")
        elif re.search(r"\bint\b", str(field.annotation)):
            yield prefix + name, value


@pytest.mark.fault(60, promise="P5")
def test_every_number_of_processes_threads_or_examples_has_an_upper_limit(tmp_path):
    found = dict(integers(load_config(None)))
    assert set(NO_ALLOCATION.split()) < set(found)
    for name in found.keys() - set(NO_ALLOCATION.split()):
        section, key = name.split(".")
        value = [10**9] * 2 if isinstance(found[name], tuple) else 10**9
        (tmp_path / "config.yaml").write_text(f"{section}: {{{key}: {value}}}")
        with pytest.raises(ConfigError, match=rf"{name}: (expected .* and at most|Input should be less than)"):
            load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("size", ["3 GiB", "3GiB", "500 MB", "auto", "0.5", "1", "3 gb", "600000000 B"])
def test_the_usual_sizes_are_accepted(tmp_path, size):
    (tmp_path / "config.yaml").write_text(f"cluster: {{memory_limit: '{size}'}}")
    assert load_config(tmp_path / "config.yaml").cluster.memory_limit == size


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"release: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("text", "roots"), [("/data", ["/data"]), ("/a:/b", ["/a", "/b"]), ("/a, /b", ["/a", "/b"]), ('["/a"]', ["/a"])]
)
def test_a_list_in_the_environment_is_written_as_an_administrator_writes_it(monkeypatch, text, roots):
    monkeypatch.setenv("SENTINEL__WATCH__ROOTS", text)
    assert load_config(None).watch.roots == tuple(map(Path, roots))


def test_patterns_in_the_environment_may_hold_colons(monkeypatch):
    monkeypatch.setenv("SENTINEL__WATCH__INCLUDE", "a:b*.h5,*.fil")
    assert load_config(None).watch.include == ("a:b*.h5", "*.fil")


@pytest.mark.fault(60, promise="P5")
@pytest.mark.parametrize(
    ("name", "value"), [("WATCH__ROOTS", ""), ("WATCH", "3"), ("WATCH", "{junk"), ("LEASE_S", "inf")]
)
def test_a_wrong_value_in_the_environment_is_a_configuration_error(monkeypatch, name, value):
    monkeypatch.setenv(f"SENTINEL__{name}", value)
    with pytest.raises(ConfigError, match=r"watch|lease_s"):
        load_config(None)


@pytest.mark.fault(60, promise="P5")
@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("SENTINEL_STATE_DIR", "/x", "expected two underscores"),
        ("SENTINEL_WATCH__ROOTS", "/x", "expected two underscores"),
        ("sentinel__bogus", "1", "sentinel__bogus: no such section or key"),
        ("SLACK_CHANNEL", "#general", "SLACK_CHANNEL: expected the id of a channel"),
        ("SENTINEL_WEBHOOK_URL", "hooks.example/secret", "SENTINEL_WEBHOOK_URL: expected a URL"),
        ("SENTINEL_WEBHOOK_URL_FILE", "junk", "SENTINEL_WEBHOOK_URL_FILE: expected a file that can be read"),
        ("SLACK_BOT_TOKEN_FILE", "junk", "SLACK_BOT_TOKEN_FILE: expected a file that can be read, found 'utf-8'"),
        ("SLACK_BOT_TOKEN_FILE", "long", "SLACK_BOT_TOKEN_FILE: expected a file that can be read, found more than"),
        ("SLACK_BOT_TOKEN_FILE", "fifo", "SLACK_BOT_TOKEN_FILE: expected a file that can be read, found a FIFO"),
        ("SLACK_BOT_TOKEN_FILE", ".", "SLACK_BOT_TOKEN_FILE: expected a file that can be read"),
    ],
)
def test_a_variable_that_is_misspelled_or_of_no_use_is_named(tmp_path, monkeypatch, name, value, found):
    (tmp_path / "junk").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"x" * (MOST_TEXT + 1))
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_config(None)
    (line,) = str(caught.value).splitlines()
    assert found in line
    assert "secret" not in line


def test_a_configuration_is_a_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match=r"fifo: cannot be read: a FIFO"):
        load_config(tmp_path / "fifo")


@pytest.mark.fault(60, promise="P5")
@pytest.mark.parametrize("command", [["config", "check"], ["up"]])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("watch: {roots: [.]}", "below the root"),
        ("watch: {roots: [config.yaml]}", "config.yaml: expected a folder, found a file"),
        ("watch: {roots: [in]}\npicture_dir: in/pictures", "picture_dir: expected a folder that is not watched"),
        ("watch: {roots: [in]}\ninjections: {canary_dir: in}", "injections.canary_dir: expected a folder that is not"),
        ("state_dir: config.yaml", "config.yaml: expected a folder, found a file"),
        ("watch: {roots: [in, in/2026]}", "in/2026 below"),
        ("watch: {roots: [in, ./in]}", "watch.roots: expected each folder once"),
    ],
)
def test_the_check_finds_misplaced_folders_as_a_start_does(tmp_path, monkeypatch, capsys, command, text, found):
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    assert cli.main(command) == 2
    assert found in capsys.readouterr().err


@pytest.fixture
def checked(tmp_path, monkeypatch, capsys):
    """Return a function that writes a configuration, checks it, and returns exit status and lines."""

    def check(text=""):
        (tmp_path / "config.yaml").write_text(f"release: {ROOT / 'models' / 'equinox'}\n{text}")
        monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
        status = cli.main(["config", "check"])
        printed = capsys.readouterr()
        return status, (printed.err or printed.out).splitlines()

    return check


@pytest.fixture
def any_release(monkeypatch):
    """Load no release: its forests take seconds."""
    monkeypatch.setattr("aetherscan.detector.detector.load_detector", lambda folder: folder)


@pytest.mark.usefixtures("any_release")
def test_the_check_creates_no_store_and_changes_none(checked, tmp_path):
    assert checked() == (0, ["no errors"])
    assert not (tmp_path / "var").exists()
    (tmp_path / "var").mkdir()
    fixture = (ROOT / "tests" / "data" / "stores" / "sqlite-3.sql").read_text()
    with closing(sqlite3.connect(tmp_path / "var" / "sentinel.db")) as rows:
        rows.executescript(fixture)
        assert checked() == (0, ["no errors"])
        assert rows.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall() == [("3",)]


@pytest.mark.usefixtures("any_release")
def test_the_check_finds_a_store_of_a_newer_version_and_one_that_cannot_be_reached(checked, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/newer.db")
    with store.write() as rows:
        rows.execute(update(meta).where(meta.c.key == "schema_version").values(value="99"))
    status, (line,) = checked(f"store: {{url: 'sqlite:///{tmp_path}/newer.db'}}")
    assert status == 1
    assert re.match("store: .*newer.db: expected schema version .* found 99", line)
    (tmp_path / "junk.db").write_bytes(b"no database" * 100)
    status, (line,) = checked(f"store: {{url: 'sqlite:///{tmp_path}/junk.db'}}")
    assert (status, "damaged" in line) == (1, True)
    status, (line,) = checked("store: {url: 'postgresql+psycopg://127.0.0.1:9/x'}")
    assert (status, line[:7]) == (1, "store: ")


def test_the_check_finds_a_release_that_a_worker_could_not_load(checked, tmp_path, monkeypatch):
    release = tmp_path / "release"
    shutil.copytree(ROOT / "models" / "equinox", release)
    monkeypatch.setenv("SENTINEL__RELEASE", str(release))
    card = (release / "release.json").read_text()
    (release / "release.json").write_text(card.replace(MEASUREMENTS[0], "brightness"))
    status, (line,) = checked()
    assert (status, line[:9]) == (1, "release: ")
    assert "measurements" in line
    (release / "release.json").write_text(card)
    (release / "encoder.onnx").write_bytes(b"x")
    assert "encoder.onnx: expected sha256" in checked()[1][0]
    shutil.rmtree(release)
    assert "release: expected a folder with release.json" in checked()[1][0]


@pytest.mark.fault(34, promise="P5")
@pytest.mark.parametrize(
    ("command", "key", "begins"),
    [
        (["config", "check"], "shadow", "shadow: "),
        (["config", "check"], "train", "train.start: "),
        (["doctor"], "shadow", "FAIL  release: ReleaseError: shadow: "),
        (["up"], "shadow", "up: "),
    ],
)
def test_a_missing_shadow_or_start_release_is_named_before_a_search_needs_it(
    tmp_path, monkeypatch, capsys, command, key, begins
):
    (tmp_path / "in").mkdir()
    value = "{start: missing}" if key == "train" else "missing"
    text = f"release: {ROOT / 'models' / 'equinox'}\nwatch: {{roots: [in]}}\n{key}: {value}\n"
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    assert cli.main(command) == 1
    (line,) = [one for one in "".join(capsys.readouterr()).splitlines() if "release.json" in one]
    assert line.startswith(begins)
    assert f"{tmp_path / 'missing'}: expected a folder with release.json" in line
