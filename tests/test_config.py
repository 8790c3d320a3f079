"""The configuration is one file: mistakes are reported at once, and the shipped file has the defaults of the code."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from sentinel.config import ROOT, Config, config_path, load_config, secret
from sentinel.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def written(text):
        (tmp_path / "config.yaml").write_text(text)
        return tmp_path / "config.yaml"

    return written


@pytest.mark.fault(33, promise="P5")
def test_every_mistake_is_reported_at_once_with_place_and_value(write, monkeypatch):
    monkeypatch.setenv("SENTINEL__WATCH__SCAN_S", "soon")
    monkeypatch.setenv("SENTINEL__COLOR", "red")
    path = write("lease_s: -1\nsearch: {mode: guess}\nwatch: {folders: [a]}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    for part in ("lease_s", "search.mode", "'guess'", "watch.folders", "watch.scan_s", "'soon'", "SENTINEL__COLOR"):
        assert part in message


@pytest.mark.parametrize("text", ["- a list", "a: [unclosed", "watch: 3"])
def test_a_file_that_is_no_configuration_is_named(write, text):
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(write(text))


def test_the_environment_overrides_the_file(write, monkeypatch):
    monkeypatch.setenv("SENTINEL__WATCH__SETTLE_S", "30")
    config = load_config(write("watch: {settle_s: 20, scan_s: 7}"))
    assert (config.watch.settle_s, config.watch.scan_s) == (30, 7)


def test_relative_paths_start_at_the_folder_of_the_file(write, tmp_path):
    config = load_config(write("watch: {roots: [in, /data]}"))
    assert config.watch.roots == (tmp_path / "in", Path("/data"))
    assert config.state_dir == tmp_path / "var"
    assert config.store_url == f"sqlite:///{tmp_path}/var/sentinel.db"


def test_a_release_that_is_not_beside_the_file_is_that_of_the_program(write, tmp_path):
    assert load_config(write("state_dir: s")).release == ROOT / "models" / "equinox"
    assert load_config(write("release: models/mine")).release == tmp_path / "models" / "mine"
    assert load_config(write("shadow: models/equinox")).shadow == ROOT / "models" / "equinox"
    (tmp_path / "models" / "equinox").mkdir(parents=True)
    assert load_config(write("state_dir: s")).release == tmp_path / "models" / "equinox"


def test_the_shipped_file_has_every_key_with_its_default_and_a_comment():
    text = (ROOT / "config.yaml").read_text()
    shipped, ours = yaml.safe_load(text), Config().model_dump(mode="json")
    assert shipped["train"].items() <= ours["train"].items()  # of its sixty options those that are changed most
    assert shipped | {"train": None} == ours | {"train": None}
    keys = [line for line in text.splitlines() if line.startswith(" ")]
    assert all("#" in line or "api_url" in line for line in keys)


def test_the_search_section_is_the_settings_of_the_search():
    from aetherscan.options.search import SearchSettings

    settings = SearchSettings(threads=2)  # what most machines can spare for one search
    assert Config().search.model_dump() == {option.name: getattr(settings, option.name) for option in fields(settings)}


def test_the_slack_token_is_in_no_dump_of_the_configuration(monkeypatch):
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    monkeypatch.setenv("SLACK_CHANNEL", "C1")
    config = load_config(None)
    assert config.slack_channel == "C1"
    assert "xoxb" not in config.model_dump_json() + repr(config)


def test_secrets_are_read_from_files_too_and_a_file_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(ConfigError, match="SLACK_BOT_TOKEN_FILE: expected a file"):
        load_config(None)
    assert Config(slack={"channel": "C1"}).posters == ("slack",)  # a search that ends meanwhile is announced later
    (tmp_path / "token").write_text("xoxb-secret\n")
    assert secret("SLACK_BOT_TOKEN") == "xoxb-secret"


def test_a_password_in_the_address_of_the_store_is_refused_and_not_repeated(write):
    with pytest.raises(ConfigError, match="PGPASSFILE") as caught:
        load_config(write("store: {url: 'postgresql+psycopg://me:sesame@db/sentinel'}"))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_nothing_listens_beyond_loopback_without_a_certificate(write, host):
    with pytest.raises(ConfigError, match=r"web.*expected web\.certificate and web\.key"):
        load_config(write(f"web: {{host: '{host}'}}"))
    load_config(write(f"web: {{host: '{host}', certificate: a.pem, key: b.pem}}"))
    load_config(write(f"web: {{host: '{host}', port: null}}"))


def test_slack_is_off_without_a_token_and_with_a_file_that_holds_none(tmp_path, monkeypatch):
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    monkeypatch.setenv("SLACK_CHANNEL", "C1")
    assert load_config(None).slack_channel is None
    for token, channel in (("\n", None), ("xoxb-1\n", "C1")):
        (tmp_path / "token").write_text(token)
        monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "token"))
        assert load_config(None).slack_channel == channel


def test_the_named_file_overrides_the_environment_and_both_override_the_default(monkeypatch):
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)
    assert config_path() == ROOT / "config.yaml"
    monkeypatch.setenv("SENTINEL_CONFIG", "/etc/sentinel.yaml")
    assert config_path() == Path("/etc/sentinel.yaml")
    assert config_path("/tmp/mine.yaml") == Path("/tmp/mine.yaml")


@pytest.mark.parametrize(
    ("cluster", "remedy"),
    [
        ("scheduler: tcp://10.0.0.1:8786", "expected tls://, or tcp:// on this machine"),
        ("scheduler: tls://10.0.0.1:8786, tls_ca: ca.pem", "tls:// needs tls_ca, tls_cert and tls_key"),
        ("scheduler: 10.0.0.1:8786", "should match"),
    ],
)
def test_a_scheduler_that_accepts_code_from_anyone_is_refused_with_the_remedy(write, cluster, remedy):
    with pytest.raises(ConfigError, match=remedy):
        load_config(write(f"cluster: {{{cluster}}}"))


def test_a_scheduler_on_this_machine_or_with_certificates_is_accepted(write, tmp_path):
    assert load_config(write("cluster: {scheduler: tcp://127.0.0.1:8786}")).service == "tcp://127.0.0.1:8786"
    tls = "scheduler: tls://10.0.0.1:8786, tls_ca: ca.pem, tls_cert: /etc/tls/host.pem, tls_key: host.key"
    cluster = load_config(write(f"cluster: {{{tls}}}")).cluster
    assert (cluster.tls_ca, cluster.tls_cert) == (tmp_path / "ca.pem", Path("/etc/tls/host.pem"))


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("{low_mhz: 2, high_mhz: 1, reason: x}", "mute.0: Value error, expected low_mhz below high_mhz, found 2 and 1"),
        ("{low_mhz: 1, high_mhz: 2}", "mute.0.reason: Field required"),
        (
            "{low_mhz: 1, high_mhz: 2, reason: x, since: 2026-02-01, until: 2026-01-01}",
            "expected since not after until",
        ),
        ("{low_mhz: 1, high_mhz: 2, reason: x, since: soon}", "mute.0.since"),
    ],
)
def test_a_mute_zone_that_is_none_is_refused(write, zone, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(f"mute: [{zone}]"))
