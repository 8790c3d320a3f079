"""The commands work on Python without packages as far as help goes, and report an error in one line."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from sqlalchemy import update

from sentinel import cli
from sentinel.commands import candidates, releases
from sentinel.commands.listing import listed
from sentinel.config import ROOT
from sentinel.errors import Cause, FetchError
from sentinel.store.queue import open_store
from sentinel.store.schema import file

COMMANDS = """
up down restart status logs doctor demo search train evaluate candidates outbox quarantine replay config store models
fetch-models test docs
"""


@pytest.fixture
def configured(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("release: models/none\n")
    for name in [name for name in os.environ if name.startswith("SENTINEL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    return tmp_path


def test_help_needs_nothing_but_the_standard_library():
    code = "import sys; from sentinel import cli; cli.parser().format_help(); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    roots = {name.split(".")[0] for name in printed.stdout.split()}
    ours = {"sentinel", "aetherscan", "__main__", "__mp_main__"}
    assert roots - set(sys.stdlib_module_names) - ours == set()


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as left:
        cli.parser().parse_args([command, "--help"])
    assert left.value.code == 0
    assert f"example:\n  ./sentinel.py {command}" in capsys.readouterr().out


def test_options_of_pytest_are_passed_on(monkeypatch):
    handed = []
    monkeypatch.setattr("sentinel.commands.testing.run_tests", lambda rest: handed.extend(rest) or 0)
    assert cli.main(["test", "-k", "cadence", "--help"]) == 0
    assert handed == ["-k", "cadence", "--help"]


@pytest.mark.fault(33, promise="P5")
def test_a_wrong_configuration_is_exit_2(configured, capsys):
    (configured / "config.yaml").write_text("lease: 3\nwatch: {root: a}\n")
    assert cli.main(["up"]) == 2
    output = capsys.readouterr().err
    assert "lease" in output
    assert "watch.root" in output


def test_an_option_out_of_range_is_exit_2_with_the_value(configured, capsys):
    assert cli.main(["search", "a.h5", "--threshold", "7"]) == 2
    assert "threshold: expected at least 0 and at most 1, found 7.0" in capsys.readouterr().err


def test_a_search_of_files_that_form_no_cadence_gives_the_reason_and_an_empty_table(configured, capsys):
    assert cli.main(["search", str(configured / "none.h5"), "--output", str(configured / "found")]) == 1
    assert "not searched" in capsys.readouterr().out
    assert json.loads((configured / "found" / "run.json").read_text())["cadences"] == []
    assert (configured / "found" / "candidates.csv").read_text().startswith("frequency_mhz,drift_rate_hz_s")


def test_the_state_of_a_service_that_was_never_started_is_unknown(configured, capsys):
    assert cli.main(["status"]) == 3
    assert "up" in capsys.readouterr().out


def test_the_state_of_a_service_that_does_not_run_is_critical(configured, capsys):
    open_store(f"sqlite:///{configured}/var/sentinel.db").engine.dispose()
    assert cli.main(["status", "--json"]) == 2
    output = json.loads(capsys.readouterr().out)
    assert output["level"] == "critical"
    assert output["ledger"] == {"seen": 0, "done": 0, "quarantined": 0, "skipped": 0, "waiting": 0}
    assert output["slack"] == "off"


def test_the_state_is_unknown_if_the_configuration_or_the_store_cannot_be_read(configured, capsys):
    (configured / "config.yaml").write_text("lease: 3\n")
    assert cli.main(["status"]) == 3
    assert capsys.readouterr().out.startswith("unknown: ")
    (configured / "config.yaml").write_text("")
    (configured / "var").mkdir(exist_ok=True)
    (configured / "var" / "sentinel.db").write_bytes(b"no database" * 100)
    for options, found in (([], 1), (["--probe"], 1), (["--json"], 2)):
        assert cli.main(["status", *options]) == 3
        assert len(re.findall("not a database", capsys.readouterr().out)) >= found


@pytest.mark.fault(26, promise="P2")
@pytest.mark.parametrize("command", [["candidates", "ls"], ["quarantine", "ls"], ["doctor"], ["status"]])
def test_no_command_creates_a_store_while_the_disk_of_a_running_service_is_away(configured, monkeypatch, command):
    monkeypatch.setattr("sentinel.commands.doctor.service_pids", lambda _: [1])
    monkeypatch.setattr("sentinel.programs.supervisor.service_pids", lambda _: [1])
    assert cli.main(command) != 0
    assert not list(configured.rglob("sentinel.db"))


def test_a_reader_that_closes_the_pipe_is_no_error():
    command = f"{sys.executable} -P -m sentinel.cli train --help | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    command = f"{sys.executable} -P -m sentinel.cli config show | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_command_without_the_packages_for_training_says_how_to_install_them(configured, capsys, monkeypatch):
    def train(_):
        raise ModuleNotFoundError("No module named 'keras'", name="keras")

    monkeypatch.setattr(cli, "_train", train)
    assert cli.main(["train"]) == 1
    assert (
        "train: expected the packages for training, found no keras; ./sentinel.py installs" in capsys.readouterr().err
    )


def test_a_demo_without_a_service_names_the_command_that_starts_it(configured, capsys):
    assert cli.main(["demo"]) == 1
    assert "./sentinel.py up" in capsys.readouterr().out


@pytest.mark.fault(34, promise="P5")
def test_starting_without_a_release_is_one_line_that_names_it(configured, capsys):
    assert cli.main(["up"]) == 1
    assert "models/none" in capsys.readouterr().err


def test_stopping_what_does_not_run_is_no_error(configured):
    assert cli.main(["down"]) == 0


READERS = [
    "candidates ls",
    "candidates show 1",
    "candidates export all.csv",
    "outbox ls",
    "quarantine ls",
    "quarantine requeue --all",
    "requeue --target A",
    "replay --since 2026-01-01",
    "models compare r2",
    "store migrate",
]


@pytest.mark.parametrize("line", READERS)
def test_a_command_that_needs_what_a_service_wrote_says_that_there_is_no_store_and_makes_none(configured, capsys, line):
    assert cli.main(line.split()) == 1
    assert "no store in" in capsys.readouterr().err
    assert not (configured / "var").exists()


@pytest.mark.parametrize("line", ["doctor", "models ls", "models verify", "config check"])
def test_a_command_that_looks_at_the_machine_makes_no_store(configured, capsys, line):
    cli.main(line.split())
    assert "no store" not in capsys.readouterr().err
    assert not (configured / "var").exists()


def test_the_doctor_names_a_failed_check_and_continues(configured, capsys):
    assert cli.main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "FAIL  release: ReleaseError" in output
    assert "ok    slack: off" in output


def test_a_catalogue_lists_files_below_its_own_folder(tmp_path):
    (tmp_path / "list.csv").write_text("target,path\nHIP1,a.h5\nHIP2,/data/b.fil\n")
    paths, unused = listed([str(tmp_path / "list.csv"), "c.h5"])
    assert (paths, unused) == ([tmp_path / "a.h5", *map(type(tmp_path), ("/data/b.fil", "c.h5"))], [])


def test_candidates_are_listed_shown_and_exported_with_six_snrs(tmp_path):
    from rows import CANDIDATE, found, queue

    store = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    queue(store)
    known = {**CANDIDATE, "allocations": "DSN X down-link, Earth exploration", "comb_teeth": 0, "nearest_hz": None}
    store.complete(store.claim(60).token, replace(found(2), candidates=[CANDIDATE, known]))
    assert [line.split("MJD ")[1] for line in candidates.newest(store, 20)] == [
        "59103.0200  DSN X down-link, Earth exploration",
        "59103.0200",
    ]
    record = json.loads(candidates.as_json(store, 2))
    assert (record["allocations"], record["comb_teeth"], record["seen_before"]) == (known["allocations"], 0, 0)
    assert json.loads(candidates.as_json(store, 1))["latents"] == [0.0] * 48
    assert list(record)[-1] == "latents"
    assert candidates.export(store, tmp_path / "all.csv") == 2
    header, first, _ = (tmp_path / "all.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["frequency_mhz"], row["snr_0"], row["snr_5"]) == ("8419.3197", "20.0", "0.3")
    store.engine.dispose()


@pytest.mark.fault(12, promise="P5")
def test_quarantined_cadences_are_listed_with_their_cause_and_can_be_queued_again(configured, capsys):
    from rows import queue

    (configured / "var").mkdir()
    store = open_store(f"sqlite:///{configured}/var/sentinel.db")
    ids = [queue(store) for _ in range(3)]
    for _ in ids:
        store.fail(store.claim(60).token, "not HDF5", Cause.FILE, max_attempts=3, retry_after_s=1)
    with store.write() as rows:
        rows.execute(update(file).where(file.c.id == 1).values(state="invalid", cause="half of it"))
    assert cli.main(["quarantine", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("1 attempts: not HDF5")
    assert lines[3].endswith("half of it")
    assert cli.main(["quarantine", "show", str(ids[1])]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["attempts"][0]["cause"], len(record["files"])) == ("not HDF5", 6)
    assert cli.main(["quarantine", "requeue", str(ids[1]), "999"]) == 1
    again = capsys.readouterr()
    assert again.out == "queued again: 1 cadences, 0 files\n"
    assert again.err.startswith("1 of the ids: expected ids of quarantined cadences")
    again = store.claim(60)
    assert (again.cadence_id, again.attempt) == (ids[1], 1)
    assert cli.main(["quarantine", "requeue"]) == 2
    assert "expected ids, --all or --files" in capsys.readouterr().err
    assert cli.main(["quarantine", "requeue", "--all", "--files"]) == 0
    assert capsys.readouterr().out == "queued again: 2 cadences, 1 files\n"
    assert store.ledger()["quarantined"] == 0
    store.engine.dispose()


@pytest.fixture
def published():
    """A web server for one archive; returns what publishes it."""
    content = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content["archive"])

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def publish(files, kind="gz", kept=1.0):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode=f"w:{kind}") as tar:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text))
        archive.truncate(int(kept * len(archive.getvalue())))
        content["archive"] = archive.getvalue()
        return f"http://127.0.0.1:{server.server_port}/r1.tar.gz", hashlib.sha256(archive.getvalue()).hexdigest()

    yield publish
    server.shutdown()
    server.server_close()


def release_files(name="r1"):
    weights = {"encoder.keras": b"encoder", "encoder.onnx": b"served", "tracks.skops": b"forest"}
    modes = {"tracks": {"threshold": 0.5, "measurements": []}}
    card = {"name": name, "modes": modes, "snippet": {"rows": 16, "bins": 512}}
    card["sha256"] = {part: hashlib.sha256(text).hexdigest() for part, text in weights.items()}
    return {f"r1/{part}": text for part, text in weights.items()} | {"r1/release.json": json.dumps(card).encode()}


def test_a_release_is_fetched_checked_and_listed(tmp_path, published):
    url, sha256 = published(release_files())
    assert releases.fetch(url, sha256, tmp_path / "models") == tmp_path / "models" / "r1"
    assert [name for name, _ in releases.releases(tmp_path / "models")] == ["r1"]
    with pytest.raises(FetchError, match="expected the name of a new folder"):
        releases.fetch(url, sha256, tmp_path / "models")


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"../../evil": b"x"}, "expected a file inside"),
        ({"r1/notes.txt": b"x"}, "StopIteration"),
        ({**release_files(), "r1/encoder.keras": b"other"}, "ReleaseError"),
        (release_files("../evil"), "expected the name of a new folder"),
    ],
)
def test_an_archive_that_is_no_release_changes_nothing(tmp_path, published, files, wrong):
    url, sha256 = published(files)
    with pytest.raises(FetchError, match=wrong):
        releases.fetch(url, sha256, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("kept", [0.0, 0.15, 0.35])
def test_an_archive_that_was_published_incomplete_changes_nothing(tmp_path, published, kind, kept):
    url, sha256 = published(release_files(), kind, kept)
    with pytest.raises(FetchError, match="expected a release in a tar archive"):
        releases.fetch(url, sha256, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_an_altered_archive_is_not_even_opened(tmp_path, published):
    url, _ = published(release_files())
    with pytest.raises(FetchError, match="nothing was unpacked"):
        releases.fetch(url, "0" * 64, tmp_path / "models")


@pytest.mark.fault(34, promise="P5")
def test_a_release_that_was_altered_fails_verification(configured, published, capsys, monkeypatch):
    url, sha256 = published(release_files())
    releases.fetch(url, sha256, configured / "models")
    monkeypatch.setenv("SENTINEL__RELEASE", str(configured / "models" / "r1"))
    assert cli.main(["models", "verify"]) == 0
    (configured / "models" / "r1" / "tracks.skops").write_bytes(b"other")
    assert cli.main(["models", "verify"]) == 1
    assert "expected sha256" in capsys.readouterr().out
