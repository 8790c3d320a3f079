"""Prometheus metrics, and the alerts and dashboard that use them."""

import json
import re

import yaml
from rows import queue, record

from sentinel.commands import candidates
from sentinel.config import ROOT, Config
from sentinel.errors import Cause
from sentinel.monitor.checks import CHECKS, WORDS
from sentinel.monitor.metrics import StageHistograms, exposition

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
    store.record_injection(kind="blind", name="2", **tone)
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
        "sentinel_events_overflowed_total 2.0",
        'sentinel_release_info{program="worker-0",release="r1",sha256="ab"} 1.0',
    ):
        assert line in text
    assert re.search(r"^sentinel_disk_free_bytes{place=.state.} [1-9]", text, re.MULTILINE)
