"""Status output."""

from rows import RUNNING, found, queue, row, status_of
from sqlalchemy import update

from sentinel import cli
from sentinel.config import Config
from sentinel.monitor import status
from sentinel.store.queue import OWED
from sentinel.store.schema import artefact


def test_pictures_that_are_still_to_be_drawn_are_counted(store, tmp_path, monkeypatch):
    queue(store)
    store.complete(store.claim(60).token, found())
    for sha256, line in ((OWED, "pictures   1 to be drawn"), ("ab" * 32, "pictures   0 to be drawn")):
        with store.write() as rows:
            rows.execute(update(artefact).values(sha256=sha256))
        assert row(store, artefact).kind == "waterfall"
        assert line in status.lines(status_of(Config(state_dir=tmp_path), store, monkeypatch, RUNNING))


def test_no_secret_is_in_any_output_or_file_of_the_service(tmp_path, monkeypatch, capsys):
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

    written = write_conf(config, foreground=False).read_text()
    printed = capsys.readouterr()
    assert "sesame" not in printed.out + printed.err + written + repr(config) + config.model_dump_json()
