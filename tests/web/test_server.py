"""The health, metrics and candidate pages."""

import csv
import http.client
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

import pytest
from rows import CANDIDATE, RUNNING, alive, found, queue, status_of
from sqlalchemy import insert, update

from sentinel.commands import candidates
from sentinel.config import Config
from sentinel.errors import StoreAwayError
from sentinel.monitor import status
from sentinel.monitor.metrics import StageHistograms
from sentinel.store.schema import cadence, file, now
from sentinel.web.app import OPEN, PAGES
from sentinel.web.server import serve

HOSTILE = "<script>alert(1)</script>\n=HYPERLINK(1)\x1b[31m'; DROP TABLE candidate;--../../etc/passwd" + "x" * 300


@pytest.fixture
def served(store, tmp_path):
    """Return the responses of a server on its own port."""
    (tmp_path / "var").mkdir()
    config = Config(state_dir=tmp_path / "var", web={"port": 0})
    server = serve(config, store, StageHistograms())

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    yield get
    server.close()


def test_a_service_without_workers_is_healthy_and_not_ready(store, served, monkeypatch):
    assert served("/healthz") == (200, "ok\n")
    code, body = served("/readyz")
    assert (code, body.split(":")[0]) == (503, "critical")
    alive(store)
    monkeypatch.setattr(status, "program_states", lambda _: {name: {"statename": "RUNNING"} for name in RUNNING})
    assert served("/readyz?x=1")[0] == 200
    assert served("/metrics")[1].startswith("# HELP sentinel_status_level")
    for path in ("/../etc/passwd", "/cadences/", "/cadences/1;x", "/cadences/" + "9" * 400, "/pictures/a"):
        assert served(path)[0] == 404


def test_an_address_beyond_loopback_serves_only_tls(store, tmp_path):
    pair = [str(tmp_path / name) for name in ("key.pem", "cert.pem")]
    asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", *asked, "-keyout", pair[0], "-out", pair[1]], check=True, capture_output=True)
    config = Config(state_dir=tmp_path, web={"port": 0, "key": pair[0], "certificate": pair[1]})
    server = serve(config, store, StageHistograms())
    at = f"//127.0.0.1:{server.port}/healthz"
    trust = ssl.create_default_context(cafile=pair[1])
    trust.check_hostname = False
    with urllib.request.urlopen(f"https:{at}", context=trust, timeout=10) as reply:
        assert reply.read() == b"ok\n"
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http:{at}", timeout=10)
    server.close()


def test_the_pages_are_listed_and_a_cadence_that_does_not_exist_is_not_found(store, served):
    status_code, body = served("/nothing")
    assert status_code == 404
    assert [
        page for page in (*PAGES, *OPEN) if re.sub("{[^}]*id:int}", "ID", page).replace("{mhz}", "MHZ") not in body
    ] == []
    assert served("/")[0] == 200
    assert served("/cadences/999") == (404, "no cadence 999\n")
    assert served("/cadences/%D9%A3")[0] == 404
    assert "no candidates" in served(f"/cadences/{queue(store)}")[1]


def test_the_pages_show_state_and_warnings_of_a_cadence(store, served):
    store_id = queue(store)
    with store.write() as rows:
        rows.execute(update(cadence).values(why="fch1: expected <MHz>"))
    assert "fch1: expected &lt;MHz&gt;" in served(f"/cadences/{store_id}")[1]
    run = {"counts": {}, "warnings": ["tsamp: expected less"]}
    store.complete(store.claim(60).token, replace(found(), run=run))
    for page in ("/candidates/1", f"/cadences/{store_id}"):
        assert "tsamp: expected less" in served(page)[1]


def test_a_candidate_has_short_numbers_and_no_path(store, served):
    queue(store)
    row = {
        **CANDIDATE,
        "frequency_mhz": 1499.8798993865,
        "drift_rate_hz_s": 0.9601678,
        "picture": "/srv/pictures/a.png",
    }
    store.complete(store.claim(60).token, replace(found(), candidates=[row]))
    page = served("/candidates")[1]
    assert ">1499.879899</a>" in page
    assert ">+0.960<" in page
    assert "/srv/pictures" not in page


def test_head_is_answered_as_get_without_the_body(store, tmp_path):
    config = Config(state_dir=tmp_path, web={"port": 0})
    server = serve(config, store, StageHistograms())
    for path, code in (("/healthz", 200), ("/none", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("HEAD", path)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (code, b"")
        assert int(reply.headers["Content-Length"]) > 0
        connection.close()
    server.close()


def test_metrics_readiness_and_pages_report_a_store_that_cannot_be_read(store, served, monkeypatch):
    @contextmanager
    def away():
        raise StoreAwayError("sentinel.db: cannot be used now: database is locked")
        yield

    monkeypatch.setattr(type(store), "read", lambda _: away())
    code, body = served("/readyz")
    assert code == 503
    assert "database is locked" in body
    code, body = served("/metrics")
    assert code == 200
    assert 'sentinel_check_level{check="store"} 2.0' in body
    assert "sentinel_status_level 3.0" in body
    assert served("/candidates") == (503, "sentinel.db: cannot be used now: database is locked\n")


@pytest.mark.fault(40, promise="P5")
def test_markup_in_a_target_name_is_escaped_on_every_page(store, tmp_path, served, monkeypatch):
    queue(store)
    rows_ = [{**CANDIDATE, "target": HOSTILE, "allocations": HOSTILE, "clock": "=HYPERLINK(1)"}]
    store.complete(store.claim(60).token, replace(found(), candidates=rows_, message=None))
    queue(store, state="forming")
    stamp = {"size": 1, "mtime_ns": 1, "inode": "1"}
    with store.write() as rows:
        rows.execute(update(cadence).values(target=HOSTILE, why=HOSTILE))
        rows.execute(insert(file).values(path=HOSTILE, state="invalid", cause=HOSTILE, changed_at=now(), **stamp))
    for path in (
        "/candidates",
        "/candidates/1",
        "/cadences/1",
        "/label",
        "/at/8419.3197",
        "/",
        "/candidates?target=%3Cscript%3E",
    ):
        page = served(path)[1]
        assert "&lt;script&gt;" in page, path
        assert "<script>" not in page
        assert "\x1b" not in page
    text = status.lines(status_of(Config(state_dir=tmp_path), store, monkeypatch, RUNNING))
    assert all(line.isprintable() for line in [*text, *candidates.newest(store, 9)])
    assert served("/metrics")[0] == 200
    candidates.export(store, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as stream:
        (exported,) = csv.DictReader(stream)
    assert exported["clock"] == "'=HYPERLINK(1)"
    assert json.loads(candidates.as_json(store, 1))["target"] == HOSTILE
