"""Arguments are checked before any work: one line, and an exit status of the table in docs/operating.md."""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sentinel import cli
from sentinel.config import ROOT, SECRETS, Config

EXAMPLES = int(os.environ.get("SENTINEL_COMMAND_LINES", "1000"))
STUBBED = ("up", "down", "restart", "logs", "doctor", "demo", "search", "train", "evaluate", "docs", "replay")
"""Commands that start processes, search or draw; what they parse is checked, what they do is not."""
NASTY = (
    *("", " ", "0", "-1", "1", "3", "nan", "inf", "-inf", "1e400", "1e3", "0x10", "١٢", "1_0", str(2**63), "9" * 5000),
    *("a/../b", "/", "..", "/nonexistent/x.csv", "x.txt", "x.csv", "x.json", "zz", "-", "--", "-n", "%s", "\t", "a\nb"),
    *("http://[", "http://localhost:99999999/x", "://", "ftp://a", "0" * 64, "\udcff", "\u2603", "a" * 5000, "1d"),
    *("9" * 400 + "d", "0001-01-01", "99999", "true", "RFI"),
)  # fmt: skip


def exit_statuses():
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    section = text.partition("## Exit status")[2].partition("\n## ")[0]
    return {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}


def test_the_document_has_one_table_of_exit_statuses():
    assert (ROOT / "docs" / "operating.md").read_text(encoding="utf-8").count("\n| exit status |") == 1


def commands():
    """Return the words that name each command, with its parser."""
    found = []

    def walk(parser, names):
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for action in below:
            for name, child in action.choices.items():
                walk(child, [*names, name])
        if not below:
            found.append((names, parser))

    walk(cli.parser(), [])
    return [(names, parser) for names, parser in found if names != ["test"]]  # pytest parses its own options


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """Run in a folder with an empty store; commands with other effects are replaced by ones that do nothing."""
    (tmp_path / "config.yaml").write_text("release: models/none\n")
    for name in [name for name in os.environ if name.startswith(("SENTINEL", "SLACK"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.chdir(tmp_path)
    for name in STUBBED:
        monkeypatch.setattr(cli, f"_{name}", lambda _: 0)
    built = cli.parser()
    monkeypatch.setattr(cli, "parser", lambda: built)
    monkeypatch.setattr("sentinel.commands.releases.TIMEOUT_S", 0.1)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    return tmp_path


def status_of(line):
    try:
        return cli.main(line)
    except SystemExit as left:
        return left.code


def lines():
    """Command lines of each command's own options and positions, with values that are wrong more often than right."""
    value = st.sampled_from(NASTY)

    def line(command):
        names, parser = command
        options = [action.option_strings[-1] for action in parser._actions if action.option_strings]
        word = st.one_of(value.map(lambda word: [word]), st.tuples(st.sampled_from(options), value).map(list))
        positions = sum(not action.option_strings for action in parser._actions)
        words = st.lists(word, min_size=positions, max_size=5)
        return words.map(lambda words: [*names, *itertools.chain.from_iterable(words)])

    return st.sampled_from(commands()).flatmap(line)


@pytest.mark.fault(60, promise="P5")
@pytest.mark.hypothesis
def test_no_command_line_ends_in_a_traceback(quiet, capsys):
    allowed = exit_statuses()
    assert {0, 1, 2, 3} <= allowed

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(lines())
    def check(line):
        os.environ["SENTINEL_CONFIG"] = str(quiet / "config.yaml")  # --config replaces it
        status = status_of(line)
        printed = capsys.readouterr()
        assert status in allowed, line
        assert "Traceback" not in printed.err + printed.out, line
        assert status in {0, 3} or printed.err + printed.out, line

    check()


def keys(model=Config, above=()):
    """Return the place of each key of the configuration, sections included."""
    found = []
    for name, field in model.model_fields.items():
        found.append((*above, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, (*above, name))
    return found


VARIABLES = ("SLACK_CHANNEL", "AETHERSCAN_DATA_PATH", *(f"{name}{end}" for name in SECRETS for end in ("", "_FILE")))
SCALARS = (None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, [], {}, [""], [None], {"x": 1}, ["a", "a"])


@pytest.mark.fault(60, promise="P5")
@pytest.mark.hypothesis
def test_no_configuration_and_no_environment_ends_in_a_traceback(quiet, capsys, monkeypatch):
    names = [f"SENTINEL__{'__'.join(key).upper()}" for key in keys()]
    assert len(names) > 100
    text = st.sampled_from([word for word in NASTY if "\0" not in word])
    in_file = st.tuples(st.sampled_from(keys()), st.one_of(st.sampled_from(SCALARS), text))
    in_environment = st.tuples(st.sampled_from([*names, *VARIABLES]), text)

    @settings(max_examples=EXAMPLES // 2, suppress_health_check=list(HealthCheck))
    @given(st.lists(in_file, max_size=2), st.lists(in_environment, max_size=2))
    def check(values, variables):
        tree = {"release": "models/none"}
        for (*above, name), value in values:
            section = tree
            for part in above:
                below = section.get(part)
                section[part] = below if isinstance(below, dict) else {}
                section = section[part]
            section[name] = value
        (quiet / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8", errors="surrogatepass")
        with monkeypatch.context() as environment:
            for name, value in variables:
                environment.setenv(name, value)
            status = status_of(["config", "show"])
        said = capsys.readouterr()
        assert status in {0, 2}, (values, variables)
        assert "Traceback" not in said.err + said.out
        assert status == 0 or said.err.strip(), (values, variables)

    check()


@pytest.mark.fault(60, promise="P5")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("candidates show 99999999999999999999999", "expected a whole number from 1 to"),
        ("candidates show -1", "expected a whole number"),
        ("candidates ls -n 0", "expected a whole number"),
        ("candidates label 0 RFI", "expected a whole number"),
        ("candidates export x.txt", "expected a name that ends in .csv, .ecsv or .json, found 'x.txt'"),
        ("quarantine requeue 1 1.5", "found '1.5'"),
        ("outbox retry nan", "found 'nan'"),
        ("store migrate --to -1", "expected a whole number from 0"),
        ("demo --seed -1", "expected a whole number from 0"),
        ("demo --slow nan", "expected a finite number of at least 0 and at most 3600, found 'nan'"),
        ("demo --slow -3", "found '-3'"),
        ("evaluate --seed -1", "expected a whole number from 0"),
        ("evaluate --band-mhz nan", "expected a finite number greater than 0"),
        ("evaluate --band-mhz 0", "found '0'"),
        ("search a.h5 --trace nan", "expected a finite number greater than 0, found 'nan'"),
        ("search a.h5 --trace inf", "found 'inf'"),
        ("search a.h5 --threshold nan", "expected a finite number"),
        ("search a.h5 --threads 0", "expected a whole number from 1 to 1024"),
        ("models fetch x --sha256 12", "expected 64 hexadecimal digits, found '12'"),
        ("models promote ../x", "expected the name of a folder without a slash"),
        ("logs ../../passwd", "expected one of cluster"),
        ("requeue --target \udcff", "expected text in UTF-8 without control characters"),
        ("models promote \udcff", "expected text in UTF-8 without control characters"),
        (f"search a.h5 --beams 1,{'9' * 5000}", "--beams: expected the number of the ON beam"),
        ("search a.h5 --beams \u0661,\u0662", "--beams: expected the number of the ON beam"),
        ("search a**b.h5", "a**b.h5: expected a file or a pattern, found"),
        ("search fifo.csv", "fifo.csv: expected a CSV file that lists files, found"),
        ("search folder.csv", "folder.csv: expected a CSV file that lists files, found"),
        ("search long.csv", "long.csv: expected a CSV file that lists files, found"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it_and_exit_2(line, found, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTINEL__STATE_DIR", str(tmp_path / "var"))
    os.mkfifo("fifo.csv")
    Path("folder.csv").mkdir()
    os.truncate(os.open("long.csv", os.O_CREAT | os.O_WRONLY), 5 * 2**30)
    assert status_of(line.split()) == 2
    assert found in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("line", [["--config", "", "status"], ["search", ""], ["search", "a.h5", "--output", ""]])
def test_an_empty_path_is_not_taken_for_the_default_or_the_current_folder(line, capsys):
    assert status_of(line) == 2
    assert "expected a path, found ''" in capsys.readouterr().err.splitlines()[-1]


def test_a_label_of_a_user_without_a_name_has_their_number(quiet, monkeypatch):
    labels = []
    monkeypatch.setattr("sentinel.cli._store", lambda _: None)
    monkeypatch.setattr("sentinel.commands.candidates.put_label", lambda *label, **_: labels.append(label[1:]))
    for error in (KeyError, OSError):  # of Python 3.12 and 3.13
        monkeypatch.setattr("getpass.getuser", lambda error=error: raising(error))
        assert status_of(["candidates", "label", "1", "RFI"]) == 0
    assert labels == [(1, "RFI", str(os.getuid()))] * 2


def raising(error):
    raise error


@pytest.mark.parametrize("text", ["release: models/none", "bogus: 1"])
def test_an_unknown_state_has_the_form_that_was_asked_for(quiet, capsys, text):
    (quiet / "config.yaml").write_text(text)
    assert status_of(["status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["level"] == "unknown"
    assert status_of(["status", "--probe"]) == 3
    assert re.fullmatch(r"unknown: .+\n", capsys.readouterr().out)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("verb", "status"), [("ls", 0), ("verify", 1)])
def test_a_configured_release_that_is_missing_is_listed_and_fails_verification(capsys, verb, status):
    assert status_of(["models", verb]) == status
    assert "* none  not usable: expected a folder with release.json, found none" in capsys.readouterr().out


def test_a_command_whose_reader_ends_first_ends_without_output(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    line = [sys.executable, "-P", "-m", "sentinel.cli", "--config", str(tmp_path / "config.yaml"), "config", "show"]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(line, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.fault(59, promise="P5")
def test_a_full_disk_behind_standard_output_is_one_line_and_exit_1(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    line = [sys.executable, "-P", "-m", "sentinel.cli", "--config", str(tmp_path / "config.yaml"), "config", "show"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(line, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("config: ")
    assert ended.stderr.endswith("[Errno 28] No space left on device\n")
