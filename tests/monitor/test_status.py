"""Status output."""

from sentinel import cli


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
    told = capsys.readouterr()
    assert "sesame" not in told.out + told.err + written + repr(config) + config.model_dump_json()
