"""Prometheus metrics, and the alerts and dashboard that use them."""

import json
import re

import yaml
from judging import inject
from rows import RUNNING, queue, record, status_of
from sqlalchemy import insert

from sentinel.commands import candidates
from sentinel.config import ROOT, Config
from sentinel.errors import Cause
from sentinel.monitor.checks import CHECKS, WORDS
from sentinel.monitor.metrics import StageHistograms, exposition
from sentinel.monitor.status import lines
from sentinel.store.injected import put_injected
from sentinel.store.occupancy import Occupancy, remember
from sentinel.store.queue import OWED
from sentinel.store.schema import artefact

RUNBOOK = ROOT / "docs" / "operating.md"


def known(store, config):
    """Names of every metric, as a store in which everything has happened exports them."""
    record(store, "T", posters=["slack"])
    candidates.put_label(store, 1, "RFI", "a person")
    queue(store)
    store.fail(store.claim(60).token, "FormatError: no", Cause.FILE, max_attempts=3, retry_after_s=1)
    for name, facts in (("watcher", {"overflowed": 2}), ("worker-0", {"release": "r1", "sha256": "ab"})):
        store.record_heartbeat(name, 10, pid=1, host="h", **facts)
    tone = {"frequency_mhz": 1.0, "drift_rate_hz_s": 0.0, "width_hz": 1.0, "snr": 20.0, "recovered": True}
    store.record_injection(kind="canary", name="1", **tone)
    number = inject(store)
    with store.write() as rows:
        put_injected(rows, [number], "candidate", "a person")
    text = exposition(config, store, StageHistograms()).decode()
    return text, {line.partition("{")[0].split()[0] for line in text.splitlines() if not line.startswith("#")}


def test_alerts_and_dashboard_use_exported_metrics_and_each_alert_names_an_action(store, tmp_path):
    _, exported = known(store, Config(state_dir=tmp_path))
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"][0]["rules"]
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    asked = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expr in asked for name in re.findall(r"sentinel_\w+", expr)}
    assert len(named) > 15
    assert named - exported == set()
    assert {name.replace("_bucket", "") for name in exported if name.startswith("sentinel_")} - {
        f"{name.replace('_bucket', '')}{end}" for name in named for end in ("", "_count", "_sum", "_created")
    } - {"sentinel_stage_seconds_count", "sentinel_stage_seconds_sum"} == set()
    runbook = (ROOT / "docs" / "operating.md").read_text()
    assert [rule["alert"] for rule in rules if f"`{rule['alert']}`" not in runbook] == []


def test_each_check_is_a_metric_with_an_alert_of_its_severity_and_a_section_of_the_runbook(store, tmp_path):
    text, _ = known(store, Config(state_dir=tmp_path))
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"][0]["rules"]
    by_name = {rule["alert"]: rule for rule in rules}
    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=^##|\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL))
    for check in CHECKS:
        assert len(sections[check.name].split()) > 15, check.name
        if check.alert:
            rule = by_name[check.alert]
            assert f'sentinel_check_level{{check="{check.name}"}} >= 1' in rule["expr"]
            assert rule["labels"]["severity"] == WORDS[check.level]
            assert f'sentinel_check_level{{check="{check.name}"}} ' in text
            assert f"`{check.alert}`" in sections[check.name]
    asked = {name for rule in rules for name in re.findall(r'check_level{check="(\w+)"}', rule["expr"])}
    assert asked == {check.name for check in CHECKS if check.alert}


def test_metrics_count_every_event(store, tmp_path):
    text, _ = known(store, Config(state_dir=tmp_path))
    for line in (
        'sentinel_cadences{state="done"} 1.0',
        'sentinel_attempts_total{outcome="failed"} 1.0',
        'sentinel_quarantined{reason="FormatError"} 1.0',
        'sentinel_labels_total{label="RFI"} 1.0',
        'sentinel_injections_total{end="recovered",kind="blind"} 1.0',
        'sentinel_reviewed_injections_total{label="candidate"} 1.0',
        "sentinel_events_overflowed_total 2.0",
        'sentinel_release_info{program="worker-0",release="r1",sha256="ab"} 1.0',
    ):
        assert line in text
    assert re.search(r"^sentinel_disk_free_bytes{place=.state.} [1-9]", text, re.MULTILINE)


def test_metrics_and_status_tell_what_stamps_take_and_what_the_memory_holds(store, tmp_path, monkeypatch):
    record(store)
    with store.write() as rows:
        for candidate_id, size, sha256 in ((1, 3 * 10**8, "a"), (None, 10**8, "b"), (1, None, OWED)):
            values = {"cadence_id": 1, "candidate_id": candidate_id, "kind": "stamp", "path": f"/{sha256}"}
            rows.execute(insert(artefact).values(**values, sha256=sha256, bytes=size))
        remember(rows, 1, Occupancy(telescope_id=6, target="T", tstart=59000.5, band_mhz=(1.0, 2.0), lines_mhz=[1.5]))
    candidates.put_label(store, 1, "candidate", "a person")
    config = Config(state_dir=tmp_path, stamps={"budget_gb": 2}, memory={"keep": 50})
    text = exposition(config, store, StageHistograms()).decode()
    for line in (
        "sentinel_stamps 2.0",
        'sentinel_stamp_bytes{label="all"} 4e+08',
        'sentinel_stamp_bytes{label="candidate"} 3e+08',
        "sentinel_stamp_budget_bytes 2e+09",
        "sentinel_remembered_cadences 1.0",
        "sentinel_remembered_cadences_limit 50.0",
    ):
        assert line in text, line
    said = lines(status_of(config, store, monkeypatch, RUNNING))
    assert "stamps     2, 0.40 of 2 GB, 0.30 GB of them labeled candidate, which stay" in said
    assert "memory     rejected lines of 1 of at most 50 cadences, the newest of MJD 59000.5000" in said
    off = Config(state_dir=tmp_path, stamps={"budget_gb": 0}, memory={"keep": 0})
    said = lines(status_of(off, store, monkeypatch, RUNNING))
    assert "stamps     none are written: stamps.budget_gb is 0; 2 from before, 0.40 GB" in said
    assert "memory     off: memory.keep is 0" in said
