"""Monitors are told the truth, over loopback only, and what we inject ourselves is never taken for a signal."""

import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
import yaml
from factories import make_detector
from rows import CANDIDATE, RUNNING, count, found, judged, queue, record, row
from sqlalchemy import insert, select, update

from aetherscan.errors import TruncatedFileError
from aetherscan.io import open_observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from sentinel import cli
from sentinel.commands import candidates
from sentinel.config import ROOT, Config
from sentinel.injection.blind import search_blind
from sentinel.injection.canary import Canaries
from sentinel.injection.tone import write_sky
from sentinel.monitor import status
from sentinel.monitor.latency import percentiles
from sentinel.monitor.metrics import Stages, exposition
from sentinel.store.schema import CANARY, attempt, cadence, cadence_file, candidate, file, injection, now, outbox
from sentinel.web.server import answer, serve
from sentinel.workers.task import inject_blind, search_files

HOSTILE = "<script>alert(1)</script>\n=HYPERLINK(1)\x1b[31m'; DROP TABLE candidate;--../../etc/passwd" + "x" * 300


@pytest.fixture
def served(store, tmp_path):
    """Whatever is asked of a server on a port of its own."""
    (tmp_path / "var").mkdir()
    config = Config(state_dir=tmp_path / "var", web={"port": 0})
    server = serve(config, lambda path: answer(path, config, store, Stages()))

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    yield get
    server.shutdown()
    server.server_close()


def known(store, config):
    """Names of every metric, as a store in which everything has happened exports them."""
    record(store, "T", posters=["slack"])
    candidates.put_label(store, 1, "RFI", "a person")
    queue(store)
    store.fail(store.claim(60).token, "FormatError: no", retriable=False, max_attempts=3, retry_after_s=1)
    for name, facts in (("watcher", {"overflowed": 2}), ("worker-0", {"release": "r1", "sha256": "ab"})):
        store.beat(name, 10, pid=1, host="h", **facts)
    tone = {"frequency_mhz": 1.0, "drift_rate_hz_s": 0.0, "width_hz": 1.0, "snr": 20.0, "recovered": True}
    store.put_injection(kind="canary", name="1", **tone)
    store.put_injection(kind="blind", name="2", **tone)
    text = exposition(config, store, Stages()).decode()
    return text, {line.partition("{")[0].split()[0] for line in text.splitlines() if not line.startswith("#")}


def test_alerts_and_dashboard_ask_for_metrics_that_are_exported_and_each_alert_has_a_line_to_act_on(store, tmp_path):
    _, exported = known(store, Config(state_dir=tmp_path))
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"][0]["rules"]
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    asked = [rule["expr"] for rule in rules] + [one["expr"] for panel in panels for one in panel["targets"]]
    named = {name for expr in asked for name in re.findall(r"sentinel_\w+", expr)}
    assert len(named) > 15
    assert named - exported == set()
    assert {name.replace("_bucket", "") for name in exported if name.startswith("sentinel_")} - {
        f"{name.replace('_bucket', '')}{end}" for name in named for end in ("", "_count", "_sum", "_created")
    } - {"sentinel_stage_seconds_count", "sentinel_stage_seconds_sum"} == set()
    runbook = (ROOT / "docs" / "operating.md").read_text()
    assert [rule["alert"] for rule in rules if f"| `{rule['alert']}` |" not in runbook] == []


def test_metrics_say_what_happened(store, tmp_path):
    text, _ = known(store, Config(state_dir=tmp_path))
    for line in (
        'sentinel_cadences{state="done"} 1.0',
        'sentinel_attempts_total{outcome="failed"} 1.0',
        'sentinel_quarantined{reason="FormatError"} 1.0',
        'sentinel_labels_total{label="RFI"} 1.0',
        'sentinel_injections_total{end="recovered",kind="blind"} 1.0',
        "sentinel_events_overflowed_total 2.0",
        'sentinel_release_info{program="worker-0",release="r1",sha256="ab"} 1.0',
    ):
        assert line in text
    assert re.search(r"^sentinel_disk_free_bytes [1-9]", text, re.MULTILINE)


def test_a_service_that_does_not_search_is_alive_and_not_ready(store, served, monkeypatch):
    assert served("/healthz") == (200, "ok\n")
    code, told = served("/readyz")
    assert (code, told.split(":")[0]) == (503, "critical")
    store.beat("worker-0", 10, pid=1, host="h")
    monkeypatch.setattr(status, "programs", lambda _: {name: {"statename": "RUNNING"} for name in RUNNING})
    assert served("/readyz?x=1")[0] == 200
    assert served("/metrics")[1].startswith("# HELP sentinel_status_level")
    for path in ("/", "/../etc/passwd", "/cadences/", "/cadences/1;x", "/cadences/" + "9" * 400, "/pictures/a"):
        assert served(path)[0] == 404


def test_beyond_loopback_only_tls_answers(store, tmp_path):
    pair = [str(tmp_path / name) for name in ("key.pem", "cert.pem")]
    asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", *asked, "-keyout", pair[0], "-out", pair[1]], check=True, capture_output=True)
    config = Config(state_dir=tmp_path, web={"port": 0, "key": pair[0], "certificate": pair[1]})
    server = serve(config, lambda path: answer(path, config, store, Stages()))
    at = f"//127.0.0.1:{server.server_port}/healthz"
    trust = ssl.create_default_context(cafile=pair[1])
    trust.check_hostname = False
    with urllib.request.urlopen(f"https:{at}", context=trust, timeout=10) as reply:
        assert reply.read() == b"ok\n"
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http:{at}", timeout=10)
    server.shutdown()
    server.server_close()


def test_latency_is_told_from_stable_to_recorded_and_announced_by_stage(store):
    for seconds in range(1, 101):
        made = record(store, f"T{seconds}")
        with store.write() as rows:
            times = {"landed_at": -12, "stable_at": -2, "ready_at": -1, "ended_at": seconds}
            for name, offset in times.items():
                rows.execute(update(cadence).where(cadence.c.id == made).values({name: now() + offset}))
            rows.execute(update(attempt).where(attempt.c.cadence_id == made).values(started_at=now()))
            rows.execute(update(outbox).where(outbox.c.cadence_id == made).values(posted_at=now() + seconds + 3))
    with store.read() as rows:
        told = percentiles(rows)
    assert [round(told["leased_to_recorded"][q]) for q in ("p50", "p95", "p99", "of")] == [50, 95, 99, 100]
    assert [
        round(told[stage]["p50"]) for stage in ("landed_to_stable", "stable_to_recorded", "stable_to_announced")
    ] == [*(10, 52, 55)]


def of_stage(stages, store, stage):
    """How many cadences took at most a minute for a stage, how many there were, and the sum."""
    with store.read() as rows:
        stages.observe(rows)
    (metric,) = stages.histogram.collect()
    told = {(one.name, one.labels.get("le")): one.value for one in metric.samples if one.labels["stage"] == stage}
    return [told.get((f"sentinel_stage_seconds_{part}", le), 0) for part, le in (("bucket", "60.0"), ("count", None))]


def test_each_cadence_is_in_the_histograms_once_and_those_that_it_is_too_old_for_are_not_read(store, monkeypatch):
    stages = Stages()
    for seconds in (10, 100, 20):
        made = record(store, f"T{seconds}")
        with store.write() as rows:
            rows.execute(update(attempt).where(attempt.c.cadence_id == made).values(started_at=now()))
            rows.execute(update(cadence).where(cadence.c.id == made).values(ended_at=now() + seconds))
    assert of_stage(stages, store, "leased_to_recorded") == of_stage(stages, store, "leased_to_recorded") == [2, 3]
    assert of_stage(stages, store, "recorded_to_announced") == [0, 0]
    with store.write() as rows:
        rows.execute(update(outbox).values(posted_at=now() + 100))
    assert of_stage(stages, store, "recorded_to_announced") == [1, 3]
    monkeypatch.setattr("sentinel.latency.NEWEST", 1)
    assert of_stage(Stages(), store, "leased_to_recorded") == [1, 1]


TONE = {"frequency_mhz": 1500.0, "drift_rate_hz_s": 0.5, "width_hz": 4.0, "snr": 40.0}


def land_canary(store, config, tmp_path):
    """Let a canary of empty files land, and be queued as grouping does it."""

    def write(folder, _seed):
        (folder / "a.h5").touch()
        return TONE

    canaries = Canaries(config=config, store=store, write=write)
    canaries.tend()
    canaries.tend()
    (folder,) = config.canaries.iterdir()
    made = queue(store, 60000.0)
    with store.write() as rows:
        rows.execute(update(cadence).where(cadence.c.id == made).values(target=CANARY))
        seen = select(cadence_file.c.observation).where(cadence_file.c.cadence_id == made)
        for number, observation in enumerate(rows.scalars(seen).all()):
            rows.execute(update(file).where(file.c.observation == observation).values(path=f"{folder}/{number}.h5"))
    return canaries


def test_the_program_that_lands_canaries_holds_nothing_that_searches_or_makes_skies(tmp_path):
    code = """
import sys
from sentinel import canary, web
from pathlib import Path
if __name__ == "__main__":
    tone = canary.write_canary(Path(sys.argv[1]), 1)
    print(sorted({"numba", "scipy", "sklearn", "h5py", "onnxruntime"} & set(sys.modules)), tone["drift_rate_hz_s"] > 0)
"""
    (tmp_path / "lands.py").write_text(code)
    command = [sys.executable, "-P", tmp_path / "lands.py", tmp_path]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[] True\n"
    assert len(list(tmp_path.glob("*.h5"))) == 6


@pytest.mark.parametrize(("mhz", "back"), [(1500.00005, True), (1500.001, False)])
def test_a_canary_that_is_searched_is_judged_and_leaves_no_trace_among_the_cadences(store, tmp_path, mhz, back):
    config = Config(state_dir=tmp_path)
    record(store, "T")
    canaries = land_canary(store, config, tmp_path)
    run = {"release": "ab" * 32, "found": [(mhz, 0.45, 0.9)]}
    store.complete(store.claim(60).token, replace(found(0), run=run, pictures=[]))
    assert 'sentinel_attempts_total{outcome="done"} 1.0' in exposition(config, store, Stages()).decode()
    canaries.tend()
    put_in = row(store, injection)
    assert (put_in.recovered, put_in.probability) == (back, 0.9 if back else None)
    assert [count(store, table) for table in (cadence, attempt, candidate, outbox)] == [1, 1, 1, 1]
    assert count(store, file) == 6
    assert list(config.canaries.iterdir()) == []


def test_a_canary_that_stays_out_is_an_alarm_and_so_is_one_that_comes_back_without_its_tone(
    store, tmp_path, monkeypatch
):
    config = Config(state_dir=tmp_path)
    canaries = land_canary(store, config, tmp_path)
    store.beat("worker-0", 10, pid=1, host="h")
    assert judged(config, store, monkeypatch, RUNNING).level == status.OK
    with store.write() as rows:
        rows.execute(update(injection).values(made_at=now() - config.injections.alarm_s - 1))
    seen = judged(config, store, monkeypatch, RUNNING)
    assert seen.level == status.CRITICAL
    assert "canary has been out" in seen.remarks[0]
    with store.write() as rows:
        rows.execute(update(injection).values(made_at=now() - 11 * config.injections.alarm_s))
    canaries.tend()
    assert row(store, injection, id=1).recovered is False
    assert "canary" in judged(config, store, monkeypatch, RUNNING).remarks[0]
    assert count(store, cadence) == 0


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sky")
    return write_sky(folder, 5, ".fil", "DEMO5")


def test_a_canary_s_search_records_its_tone_and_no_candidate(sky, tmp_path):
    paths, tone = sky
    config = Config(state_dir=paths[0].parent.parent, injections={"canary_s": 1})
    inside = config.canaries
    inside.symlink_to(paths[0].parent)
    kept = search_files([inside / path.name for path in paths], "ABABAB", lambda _: None, config, make_detector(), 1)
    inside.unlink()
    assert (list(kept.candidates), list(kept.pictures), kept.message) == ([], [], None)
    assert any(abs(mhz - tone.frequency_mhz) < 1e-4 for mhz, _, _ in kept.run["found"])


def test_a_blind_injection_is_recovered_and_the_files_and_their_own_candidates_stay_as_they_are(sky, store):
    paths, _ = sky
    before = [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    row_ = search_blind(paths, (0, 2, 4), SearchSettings(), make_detector(), np_rng(3))
    assert row_["recovered"] is True
    assert 10 <= row_["snr"] <= 100
    assert [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths] == before
    observations = [open_observation(path) for path in paths]
    own = search_cadence(observations, make_detector()).candidates
    for one in observations:
        one.close()
    assert all(abs(one.frequency_mhz - row_["frequency_mhz"]) > 1e-5 for one in own)


def np_rng(seed):
    import numpy as np

    return np.random.default_rng(seed)


def test_blind_injections_come_at_the_configured_rate_and_are_never_candidates(store, monkeypatch):
    made = queue(store)
    with store.write() as rows:
        rows.execute(update(cadence).values(pattern="ABABAB"))
    tone = {"frequency_mhz": 1.0, "drift_rate_hz_s": 0.0, "width_hz": 1.0, "snr": 20.0, "recovered": True}
    monkeypatch.setattr("sentinel.injections.search_blind", lambda *_: {"kind": "blind", **tone})
    monkeypatch.setattr("sentinel.workers.task.detector_for", lambda _: None)
    config = Config(injections={"blind_share": 0.2})
    put_in = sum(inject_blind(store, config, made, f"{number:032x}") for number in range(200))
    assert 25 <= put_in <= 55
    assert count(store, injection) == put_in
    assert count(store, candidate) == count(store, outbox) == 0


def test_files_that_left_after_they_were_searched_are_no_error(store, monkeypatch):
    made = queue(store)
    with store.write() as rows:
        rows.execute(update(cadence).values(pattern="ABABAB"))

    def gone(*_):
        raise TruncatedFileError("away")

    monkeypatch.setattr("sentinel.injections.search_blind", gone)
    monkeypatch.setattr("sentinel.workers.task.detector_for", lambda _: None)
    assert inject_blind(store, Config(injections={"blind_share": 1}), made, "0" * 32) is False


@pytest.mark.fault(40, promise="P5")
def test_a_hostile_name_is_text_wherever_it_is_shown(store, tmp_path, served, monkeypatch):
    queue(store)
    rows_ = [{**CANDIDATE, "target": HOSTILE, "allocations": HOSTILE}]
    store.complete(store.claim(60).token, replace(found(), candidates=rows_, message=None))
    queue(store, state="forming")
    stamp = {"size": 1, "mtime_ns": 1, "inode": "1"}
    with store.write() as rows:
        rows.execute(update(cadence).values(target=HOSTILE, why=HOSTILE))
        rows.execute(insert(file).values(path=HOSTILE, state="invalid", cause=HOSTILE, changed_at=now(), **stamp))
    page = served("/candidates")[1]
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "\n" not in page
    told = status.lines(judged(Config(state_dir=tmp_path), store, monkeypatch, RUNNING))
    assert all(line.isprintable() for line in [*told, *candidates.newest(store, 9)])
    assert served("/metrics")[0] == 200
    candidates.export(store, tmp_path / "all.csv")
    with_formula = {**CANDIDATE, "target": "=HYPERLINK(1)"}
    assert candidates._flat(with_formula)["target"] == "'=HYPERLINK(1)"
    assert json.loads(candidates.one(store, 1))["target"] == HOSTILE


def test_no_secret_is_in_what_the_service_shows_or_writes(tmp_path, monkeypatch, capsys):
    for name in ("SLACK_BOT_TOKEN", "SENTINEL_WEBHOOK_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "sesame")
    monkeypatch.setenv("SENTINEL_WEBHOOK_URL", "http://127.0.0.1:9/sesame")
    (tmp_path / "config.yaml").write_text("slack: {channel: C1}\n")
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    for command in (["config", "show"], ["status", "--json"], ["doctor"], ["outbox", "ls"], ["status", "--json"]):
        cli.main(command)
    config = cli._loaded()
    assert config.posters == ("slack", "webhook")
    from sentinel.programs.supervisor import write_conf

    written = write_conf(config, tmp_path / "config.yaml", foreground=False).read_text()
    told = capsys.readouterr()
    assert "sesame" not in told.out + told.err + written + repr(config) + config.model_dump_json()
