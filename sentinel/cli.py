"""The command line: parse arguments, call one function, print the result.

Only the standard library is imported until a command runs, so that help and usage errors need no packages.

Exit status: 0 success; 1 a warning or a failed command; 2 a usage or configuration error, or a critical state; 3 the
state is unknown; 130 interrupted. docs/operating.md has the table.
"""

import argparse
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sentinel import COMMAND, VERSION
from sentinel.commands.arguments import (
    file_name,
    folder_name,
    log_name,
    number,
    path,
    picture,
    sha256,
    table,
    whole,
    words,
)

TRAINING_PACKAGES = ("tensorflow", "keras", "onnx", "sklearn", "skops")
"""Packages that serving does not need; the others are installed with the service."""
Options = argparse.Namespace
SEED = whole(0, 2**32 - 1)
RELEASE = "folder of a release (default: the active release)"
SINCE = "oldest record: a date (2026-08-01), an MJD, or an age such as 90m, 12h, 2d"


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the help of each command ends with an example."""
    text = "Search radio-telescope cadences for technosignatures as the files arrive."
    top = argparse.ArgumentParser(prog=COMMAND.removeprefix("./"), description=text)
    top.add_argument("--version", action="version", version=VERSION)
    text = "configuration file (default: $SENTINEL_CONFIG, else config.yaml)"
    top.add_argument("--config", type=file_name, metavar="FILE", help=text)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, does: Callable[[Options], int], text: str, example: str) -> argparse.ArgumentParser:
        layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
        layout["epilog"] = f"example:\n  {COMMAND} {example}"
        added = commands.add_parser(name, help=text, description=text, **layout)
        added.set_defaults(does=does)
        return added

    _service_commands(command)
    _science_commands(command)
    _record_commands(command)
    _setting_commands(command)
    test = command("test", _test, "run every check and test; options are passed to pytest", "test -k cadence")
    text = "--faults: the fault matrix; --explore: property tests with new examples; --slowest: name the ten slowest"
    test.add_argument("rest", nargs=argparse.REMAINDER, help=text)
    docs = command("docs", _docs, "build the site of the documents, with the API reference", "docs --output var/site")
    docs.add_argument("--output", type=path, default=Path("var/site"), metavar="DIR", help="default %(default)s")
    return top


def _service_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    up = command("up", _up, "start the service and wait until it is ready", "up")
    up.add_argument("--foreground", action="store_true", help="do not return; write logs to standard output")
    for parsed in (up, command("down", _down, "stop the service and every process that it started", "down")):
        parsed.add_argument("--docker", action="store_true", help="use docker compose")
    restart = command("restart", _restart, "stop the service, then start it", "restart")
    restart.set_defaults(foreground=False, docker=False)
    text = "print the state of the service; exit status 0 ok, 1 warning, 2 critical, 3 unknown"
    status = command("status", _status, text, "status --json")
    status.add_argument("--json", action="store_true", help="all facts as JSON")
    status.add_argument("--probe", action="store_true", help="one line, for a monitoring system")
    logs = command("logs", _logs, "print the last lines of the logs", "logs -f watcher")
    logs.add_argument("-f", "--follow", action="store_true", help="continue as lines are written")
    text = "cluster, watcher, poster or web (default: all)"
    logs.add_argument("name", nargs="*", type=log_name, metavar="NAME", help=text)
    command("doctor", _doctor, "check disk, folders, store, release and Slack", "doctor")
    demo = command("demo", _demo, "write a synthetic cadence and report its candidate, picture and message", "demo")
    add = demo.add_argument
    add("--keep", action="store_true", help="keep the files in the watched folder")
    add("--suffix", choices=(".h5", ".fil"), default=".h5", help="file format (default %(default)s)")
    add("--slow", type=number(0, 3600), default=0.0, metavar="S", help="copy each file in pieces over S seconds")
    add("--seed", type=SEED, default=1, help="seed of the synthetic sky (default %(default)s)")


def _science_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    search = command("search", _search, "search files without the service", "search data/*.h5 --output found")
    add = search.add_argument
    add("files", nargs="*", type=file_name, metavar="FILE", help=".h5 or .fil files, or .csv files that list them")
    text = "search FILE ... as one cadence in the order given: ABACAD, A for an ON, another letter for an OFF"
    add("--cadence", metavar="PATTERN", help=text)
    text = "search every scan of a multibeam receiver as one cadence: number of the ON beam, then those of OFF beams"
    add("--beams", metavar="ON,OFF,...", help=text)
    add("--all-products", action="store_true", help="search files with wide channels (0001, 0002) too")
    add("--output", type=path, default=Path("found"), metavar="DIR", help="default %(default)s")
    add("--format", choices=("csv", "json", "ecsv", "dat"), default="csv", help="dat: csv, and turboSETI's files")
    text = "tracks: score each line; windows: score every 4,096 channels (default: configuration)"
    add("--mode", choices=("tracks", "windows"), help=text)
    text = "lowest probability of a candidate, 0-1 (default: the release's)"
    add("--threshold", "--classification-threshold", type=number(), metavar="P", help=text)
    text = "the files have no DC spikes: blank none"
    add("--no-dc", dest="dc_spikes", action="store_const", const=False, help=text)
    add("--pol", dest="polarization", type=whole(1, 4), metavar="N", help="polarization product to search, from 1")
    text = "fine channels of a coarse channel (default: the header's)"
    add("--coarse-channels", type=whole(), metavar="N", help=text)
    add("--threads", type=whole(1, 1024), metavar="N", help="CPU threads (default: configuration)")
    text = "explain instead what each stage does at this frequency"
    add("--trace", type=number(0, above=True), metavar="MHZ", help=text)
    add("--release", type=path, metavar="DIR", help=RELEASE)
    _stamp_options(search, required=False)
    text = "score stamps with the options of Aetherscan's inference; the same as search --test-files"
    inference = command("inference", _search, text, "inference --test-files plates.npy --classification-threshold 0.9")
    text = "lowest probability of a candidate, 0-1 (default: the release's)"
    inference.add_argument("--classification-threshold", dest="threshold", type=number(), metavar="P", help=text)
    _stamp_options(inference, required=True)
    unset = ("beams", "cadence", "coarse_channels", "dc_spikes", "mode", "output", "polarization", "release", "threads")
    inference.set_defaults(files=[], all_products=False, format="csv", trace=None, **dict.fromkeys(unset))
    train = command("train", _train, "train a release", "train --save-tag test_v1 --num-training-rounds 5")
    text = "folder of the new release (default: --save-tag within --model-path)"
    train.add_argument("--output", type=path, metavar="DIR", help=text)
    _train_options(train)
    text = "measure recall and false alarms of a release on simulated skies"
    add = command("evaluate", _evaluate, text, "evaluate --output judged").add_argument
    add("--output", type=path, default=Path("judged"), metavar="DIR", help="default %(default)s")
    add("--release", type=path, metavar="DIR", help=RELEASE)
    add("--seed", type=SEED, default=1, help="seed of the skies (default %(default)s)")
    add("--scenarios", "--cells", nargs="+", default=[], metavar="NAME", help="scenarios to measure (default: all)")
    text = "use the bandwidth of the published tables; takes an hour instead of minutes"
    add("--full", action="store_true", help=text)
    add("--band-mhz", type=number(0, 1e5, above=True), metavar="MHZ", help="bandwidth of each scenario")
    add("--card", action="store_true", help="also write the results to the release's CARD.md")
    text = "write into --release the threshold for so many false alarms in 100 MHz, measured on the zoo; judges nothing"
    add("--set-alarms", type=number(0, 100, above=True), metavar="N", help=text)
    add("--slice", type=path, metavar="FILE", help=".npz file with real power, `data` (time, freq) of 16 rows")


def _stamp_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options of Aetherscan's `inference`, which score stamps."""
    add = parser.add_argument
    text = "score stamps: .npy files of (n, 6, 16, 4096) or (n, 6, 16, 512), in --data-path or its testing/"
    add("--test-files", nargs="+", type=file_name, default=[], required=required, metavar="FILE", help=text)
    text = "encoder (.onnx or .keras) in place of the release's; requires --rf-path"
    add("--encoder-path", type=file_name, metavar="FILE", help=text)
    add("--rf-path", type=file_name, metavar="FILE", help="forest (.skops) in place of the release's")
    add("--config-path", type=file_name, metavar="FILE", help="release.json of a release; the same as --release")
    text = "stamps scored at once (default %(default)s)"
    add("--per-replica-batch-size", type=whole(1, 2**16), default=256, metavar="N", help=text)
    for kind in ("data", "model", "output"):
        text = f"replaces AETHERSCAN_{kind.upper()}_PATH; see train --help"
        add(f"--{kind}-path", type=file_name, metavar="DIR", help=text)
    text = "folder of the table within --output-path (default: the time)"
    add("--save-tag", type=folder_name, metavar="TAG", help=text)


def _train_options(train: argparse.ArgumentParser) -> None:
    """Add a flag for every field of the training settings; values are validated with the configuration."""
    from dataclasses import fields

    from aetherscan.options.train import TrainSettings

    group: Any = train
    numbers: dict[Any, str] = {int: "N", int | None: "N", float: "X"}
    for option in fields(TrainSettings):
        if heading := option.metadata["heading"]:
            group = train.add_argument_group(heading)
        text = option.metadata["help"].replace("%", "%%")
        if option.default not in {None, ()}:
            default = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
            text += f" (default {str(default).lower() if isinstance(default, bool) else default})"
        form: dict[str, Any] = {"metavar": numbers.get(option.type, option.name.rpartition("_")[2].upper())}
        if option.type is bool:
            form = {"nargs": "?", "const": "true", "metavar": "true|false"}
        elif isinstance(option.default, tuple):
            form["nargs"] = len(option.default) or "+"
        group.add_argument(f"--{option.name.replace('_', '-')}", help=text, **form)


def _verbs(parent: argparse.ArgumentParser, texts: dict[str, str]) -> dict[str, argparse.ArgumentParser]:
    group = parent.add_subparsers(dest="verb", metavar="VERB", required=True)
    return {verb: group.add_parser(verb, help=text, description=text) for verb, text in texts.items()}


def _record_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    text = "list, show, export and label candidates"
    candidates = command("candidates", _candidates, text, "candidates export candidates.csv")
    texts = {"ls": "list the newest, or those of a filter", "show": "print one row as JSON"}
    texts["export"] = "write all rows, or those of a filter, to a table"
    texts["follow"] = "predict where to look for one again, and how long its target is up"
    texts["draw"] = "draw the waterfall of one from the files of its cadence, or from its stamp"
    texts["evidence"] = "pack power, row, labels, trace and checksums of one into an archive"
    some = _verbs(candidates, texts | {"label": "record what a person takes it for, and edit its message"})
    some["ls"].add_argument("-n", type=whole(), default=20, help="how many (default %(default)s)")
    some["show"].add_argument("id", type=whole())
    some["export"].add_argument("file", type=table, help=".csv, .ecsv or .json file to write")
    some["follow"].add_argument("id", type=whole())
    for verb in ("ls", "export"):
        text = "filter, such as label=none p=0.9.. night=2026-11-28 sort=-snr; docs/vetting.md lists the keys"
        some[verb].add_argument("filter", nargs="*", type=words, metavar="KEY=VALUE", help=text)
    some["draw"].add_argument("id", type=whole())
    some["draw"].add_argument("file", type=picture, help=".png file to write")
    some["draw"].add_argument("--no-track", dest="track", action="store_false", help="no lines beside the track")
    some["evidence"].add_argument("id", type=whole())
    some["evidence"].add_argument("--output", type=Path, help=".zip file to write (default candidate-ID.zip)")
    some["label"].add_argument("id", type=whole())
    some["label"].add_argument("label", choices=("candidate", "RFI", "unsure"))
    some["label"].add_argument("--note", type=words, help="free text")
    outbox = command("outbox", _outbox, "list messages, and retry those that were not delivered", "outbox ls")
    some = _verbs(outbox, {"ls": "list the newest", "retry": "make waiting messages due now"})
    some["ls"].add_argument("-n", type=whole(), default=20, help="how many (default %(default)s)")
    text = "only these, even if their state is `off` (default: all that wait)"
    some["retry"].add_argument("id", type=whole(), nargs="*", help=text)
    quarantine = command("quarantine", _quarantine, "list what was set aside, and queue it again", "quarantine ls")
    texts = {"ls": "list with causes", "show": "print a cadence and its attempts", "requeue": "queue again"}
    some = _verbs(quarantine, texts)
    some["show"].add_argument("id", type=whole())
    some["requeue"].add_argument("ids", nargs="*", type=whole(), metavar="ID", help="numbers of cadences")
    some["requeue"].add_argument("--all", action="store_true", help="every quarantined cadence")
    some["requeue"].add_argument("--files", action="store_true", help="every invalid file")
    text = "search recorded cadences again and report differences; exit status 1 if there are any"
    replay = command("replay", _replay, text, "replay --since 2d")
    replay.add_argument("--since", required=True, help=SINCE)
    text = "search recorded cadences again, of named files, a target or a period; earlier candidates are superseded"
    again = command("requeue", _requeue, text, "requeue --target HIP99427")
    again.add_argument("files", nargs="*", type=path, metavar="FILE", help="files of the cadences")
    again.add_argument("--target", type=words, help="as the headers name it")
    again.add_argument("--since", help=SINCE)


def _setting_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    web = command("web", _web, "log in to the pages in a browser", "web login")
    login = _verbs(web, {"login": "print a link that begins one session, within ten minutes"})["login"]
    login.add_argument("--name", type=words, help="whose labels they will be (default: the user who runs this)")
    config = command("config", _config, "check or print the configuration", "config check")
    _verbs(config, {"check": "list every error", "show": "print every key with its value"})
    text = "back up and restore the store, and change its schema version"
    store = command("store", _store_command, text, "store backup sentinel.backup")
    texts = {"backup": "write the store into one file, also while the service runs", "restore": "put a backup back"}
    some = _verbs(store, texts | {"migrate": "migrate up to the version of this code, or to --to"})
    for verb in ("backup", "restore"):
        some[verb].add_argument("file", type=path, metavar="FILE")
    some["migrate"].add_argument("--to", type=whole(0), metavar="N", help="schema version (default: the newest)")
    models = command("models", _models, "list, verify, download, promote and compare releases", "models verify")
    texts = {"ls": "list releases", "verify": "check the sha256 of every file", "fetch": "download one"}
    texts["promote"] = "make one the active release, from the next cadence on"
    some = _verbs(models, texts | {"compare": "compare the shadow release with what was reported"})
    for verb in ("promote", "compare"):
        some[verb].add_argument("name", type=folder_name, help="folder beside the configured release")
    alias = command("fetch-models", _models, "the same as models fetch", "fetch-models URL --sha256 HEX")
    alias.set_defaults(verb="fetch")
    for fetch in (some["fetch"], alias):
        fetch.add_argument("url", type=words, help="URL of a tar archive, or a name below releases_url")
        fetch.add_argument("--sha256", type=sha256, required=True, help="of the archive; unpacked only if it matches")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; print expected errors as plain lines."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["test"]:  # pytest parses its own options
        return _test(Options(rest=arguments[1:]))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    options = parser().parse_args(arguments)
    if options.config:
        os.environ["SENTINEL_CONFIG"] = str(Path(options.config).absolute())
    try:
        status = _run(options)
        sys.stdout.flush()
    except OSError as error:  # of standard output: what is left of it is dropped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has all that it wants
            return 0
        print(f"{options.command}: standard output: {error}", file=sys.stderr)
        return 1
    return status


def _run(options: Options) -> int:
    from aetherscan.errors import AetherscanError, OptionsError
    from sentinel.errors import ConfigError, SentinelError

    try:
        return int(options.does(options))
    except BrokenPipeError:
        raise
    except (ConfigError, OptionsError) as error:
        print(error, file=sys.stderr)
        return 2
    except (SentinelError, AetherscanError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_PACKAGES:
            raise
        how = "./sentinel.py installs them in a checkout; elsewhere install the extra `train` with pip"
        print(f"{options.command}: expected the packages for training, found no {error.name}; {how}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _loaded() -> Any:
    from sentinel.config import config_path, load_config

    return load_config(config_path())


def _checked() -> Any:
    """Return the configuration, with the folders of the service checked too."""
    from sentinel.config import place_mistakes
    from sentinel.errors import ConfigError

    config = _loaded()
    if mistakes := place_mistakes(config):
        raise ConfigError("\n".join(mistakes))
    return config


def _store(config: Any, *, create: bool = False) -> Any:
    """Open the store. A command that only reads creates none: a new one would belong to whoever looked first."""
    from sentinel.errors import StoreAwayError
    from sentinel.programs.supervisor import service_pids
    from sentinel.store.filesystem import missing_mount
    from sentinel.store.queue import open_store

    started = service_pids(config)  # a running service has a store: if there is none, its disk is away
    if not (create or started or config.has_store):
        why = missing_mount(config.state_dir) or "no service was started with this state_dir"
        raise StoreAwayError(f"no store in {config.state_dir}: {why}")
    return open_store(config.store_url, create=create and not started)


def _active_release(config: Any) -> Path:
    from sentinel.store.releases import read_active_release

    if (folder := read_active_release(config)) != config.release:
        print(f"release {folder.name}, promoted over the configured {config.release.name}", file=sys.stderr)
    return folder


def _up(options: Options) -> int:
    if options.docker:
        from sentinel.commands import container

        return container.up()
    from aetherscan.detector.release import read_release
    from sentinel.config import config_path
    from sentinel.errors import BusyError, StoreAwayError
    from sentinel.monitor.status import not_ready, other_hosts
    from sentinel.programs import supervisor
    from sentinel.store.filesystem import missing_mount
    from sentinel.store.releases import active_release

    config = _checked()
    supervisor.check_state_dir(config, config_path())
    if missing := missing_mount(config.state_dir):
        raise StoreAwayError(f"{config.state_dir}: {missing}")
    store = _store(config, create=True)
    release = read_release(active_release(store, config.release))
    if config.shadow:
        read_release(config.shadow)  # each search would fail to load it, and go on without
    if others := other_hosts(config, store):
        print(f"the service on {', '.join(others)} uses the same store: each cadence is searched and announced once")
    if running := bool(supervisor.program_states(config)):
        if supervisor.current_run(config) is None:  # its socket is seen through a shared folder, its processes are not
            raise BusyError(f"the service in {config.state_dir} runs as another user or in another container")
        print("the service is already running")
    else:
        if options.foreground:
            supervisor.notify_when_ready(config, lambda: partial(not_ready, config, _store(config)))
        supervisor.start(config, config_path(), foreground=options.foreground)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        supervisor.wait_ready(config, lambda: not_ready(config, store), print)
    except BaseException:
        if not running:
            supervisor.stop(config)
        raise
    print(
        f"release {release.name} searches new files in {', '.join(map(str, config.watch.roots))}\n"
        f"logs: {config.state_dir / 'log'}; try: {COMMAND} demo, status, candidates ls, down"
    )
    return 0


def _down(options: Options) -> int:
    if options.docker:
        from sentinel.commands import container

        return container.down()
    from sentinel.config import config_path
    from sentinel.programs import supervisor

    config = _loaded()
    processes, killed = supervisor.stop(config)
    supervisor.check_state_dir(config, config_path())
    if not processes:
        print(f"not running: no process has its state in {config.state_dir}")
    else:
        print(f"stopped{f'; killed processes {killed}, which did not end' if killed else ''}")
    return 0


def _restart(options: Options) -> int:
    return _down(options) or _up(options)


def _status(options: Options) -> int:
    import json

    from sentinel.errors import ConfigError
    from sentinel.monitor import status
    from sentinel.programs.supervisor import service_pids
    from sentinel.store.filesystem import missing_mount

    try:
        config = _loaded()
        if not config.has_store and not service_pids(config):  # else the disk of the state directory is away
            remedy = missing_mount(config.state_dir) or f"start the service: {COMMAND} up"
            return _unknown_state(f"no store in {config.state_dir}; {remedy}", options)
        seen = status.read_status(config, lambda: status.quick_store(config))
    except (ConfigError, OSError) as error:
        return _unknown_state(str(error), options)
    if options.json:
        print(
            json.dumps(
                {"level": status.WORDS[seen.level], "checks": seen.checks, "remarks": seen.remarks, **seen.facts},
                indent=1,
            )
        )
    else:
        print("\n".join(status.lines(seen)[: 1 if options.probe else None]))
    return seen.level


def _unknown_state(why: str, options: Options) -> int:
    """Print why nothing is known, in the form that was asked for, and return the exit status."""
    import json

    from sentinel.monitor.status import UNKNOWN, WORDS
    from sentinel.notify.messages import one_line

    if options.json:
        print(json.dumps({"level": WORDS[UNKNOWN], "checks": {}, "remarks": [why]}, indent=1))
    else:
        print(f"{WORDS[UNKNOWN]}: {one_line(why) if options.probe else why}")
    return UNKNOWN


def _logs(options: Options) -> int:
    from sentinel.programs.program import PROGRAMS

    config = _loaded()
    files = [str(config.state_dir / "log" / f"{name}.log") for name in options.name or PROGRAMS]
    if not any(map(os.path.exists, files)):
        raise FileNotFoundError(
            f"no logs in {config.state_dir / 'log'}: a service in the foreground writes to its standard output; "
            "see `docker compose logs -f` of a container, `journalctl -u sentinel` of a unit"
        )
    os.execvp("tail", ["tail", "-n", "50", *(["-F"] if options.follow else []), *files])  # noqa: S606


def _doctor(_: Options) -> int:
    from sentinel.commands.doctor import examine

    checks = list(examine(_loaded()))
    for name, passed, found in checks:
        print(f"{'ok  ' if passed else 'FAIL'}  {name}: {found}")
    return int(not all(passed for _, passed, _ in checks))


def _demo(options: Options) -> int:
    from sentinel.commands import demo
    from sentinel.programs import supervisor

    config = _loaded()
    if not supervisor.program_states(config):
        print(f"the service is not running; start it first: {COMMAND} up")
        return 1
    how = {"seed": options.seed, "suffix": options.suffix, "slow_s": options.slow, "keep": options.keep}
    return int(not demo.run(config, _store(config), tell=print, **how))


def _search(options: Options) -> int:
    from sentinel.commands import search

    return search.run(_loaded(), options, _active_release)


def _train(options: Options) -> int:
    from sentinel.config import train_settings

    config = _loaded()
    settings = train_settings(config, {name: getattr(options, name) for name in type(config.train).model_fields})
    settings.files()
    from sentinel.commands import train

    train.run(config, settings, options.output, _store(config) if config.has_store else None)
    return 0


def _evaluate(options: Options) -> int:
    from sentinel.commands import evaluate

    evaluate.run(_loaded(), options, _active_release)
    return 0


def _candidates(options: Options) -> int:
    from sentinel.commands import candidates
    from sentinel.store.filters import parse_terms

    asked = parse_terms(options.filter) if getattr(options, "filter", ()) else None
    store = _store(_loaded())
    if options.verb == "ls":
        print("\n".join(candidates.newest(store, options.n, asked, _user())) or "none")
    elif options.verb == "show":
        print(candidates.as_json(store, options.id))
    elif options.verb == "follow":
        print("\n".join(candidates.follow(store, options.id, time.time())))
    elif options.verb == "draw":
        candidates.draw(store, options.id, options.file, track=options.track)
        print(options.file)
    elif options.verb == "evidence":
        from sentinel.commands import evidence

        print(evidence.pack(_loaded(), store, options.id, options.output))
    elif options.verb == "label":
        candidates.put_label(store, options.id, options.label, _user(), note=options.note)
    else:
        print(f"{candidates.export(store, options.file, asked, _user())} candidates: {options.file}")
    return 0


def _user() -> str:
    """Return the name of the user; the number where there is no name, as in some containers."""
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return str(os.getuid())


def _outbox(options: Options) -> int:
    from sentinel.notify import outbox

    store = _store(_loaded())
    if options.verb == "ls":
        print("\n".join(outbox.message_lines(store, options.n)) or "none")
    else:
        due = outbox.retry(store, options.id)
        print(f"messages due now: {due}")
        return _unknown(options.id, due, "messages that wait or are off")
    return 0


def _unknown(ids: Sequence[int], known: int, kind: str) -> int:
    """Return 1, with a line, if fewer rows were changed than ids were named."""
    if unknown := max(0, len(set(ids)) - known):
        print(f"{unknown} of the ids: expected ids of {kind}, found others", file=sys.stderr)
    return int(unknown > 0)


def _quarantine(options: Options) -> int:
    from sentinel.commands import candidates
    from sentinel.errors import ConfigError

    if options.verb == "requeue" and not (options.ids or options.all or options.files):
        raise ConfigError("quarantine requeue: expected ids, --all or --files, found none of them")
    store = _store(_loaded())
    if options.verb == "ls":
        print("\n".join(candidates.set_aside(store)) or "none")
    elif options.verb == "show":
        print(candidates.history(store, options.id))
    else:
        cadences = store.requeue(None if options.all else options.ids)
        print(f"queued again: {cadences} cadences, {store.retry_invalid_files() if options.files else 0} files")
        return _unknown([] if options.all else options.ids, cadences, "quarantined cadences")
    return 0


def _replay(options: Options) -> int:
    from sentinel.commands import replay

    config = _loaded()
    return int(not replay.replay(config, _store(config), replay.moment(options.since), print))


def _requeue(options: Options) -> int:
    from sentinel.commands import replay
    from sentinel.commands.requeue import requeue
    from sentinel.errors import ConfigError

    if not options.files and options.target is None and options.since is None:
        raise ConfigError("requeue: expected files, --target or --since, found none of them")
    since = None if options.since is None else replay.moment(options.since)
    print("\n".join(requeue(_store(_loaded()), options.files, options.target, since)))
    return 0


def _web(options: Options) -> int:
    from sentinel.web.session import address, new_link

    config = _loaded()
    if config.web.read_only:
        print("web.read_only is set: a session would only read", file=sys.stderr)
    store = _store(config)
    at = address(config, store)
    print(f"{at}/login?code={new_link(store, options.name or _user())}")
    return 0


def _config(options: Options) -> int:
    import yaml

    if options.verb == "show":
        print(yaml.safe_dump(_loaded().model_dump(mode="json"), sort_keys=False))
        return 0
    from sentinel.commands.doctor import start_problems

    problems = list(start_problems(_checked()))
    print("\n".join(problems) or "no errors", file=sys.stderr if problems else sys.stdout)
    return int(bool(problems))


def _store_command(options: Options) -> int:
    from sentinel.errors import BusyError
    from sentinel.programs.program import PROGRAMS, is_held
    from sentinel.programs.supervisor import service_pids
    from sentinel.store.backup import backup, restore

    config = _loaded()
    if options.verb == "migrate":
        return _migrate(options)
    if options.verb == "backup":
        print(backup(_store(config), options.file))
        return 0
    held = [name for name in PROGRAMS if is_held(config.state_dir / "run" / f"{name}.lock")]
    if service_pids(config) or held:
        raise BusyError(f"the service runs ({', '.join(held)}): {COMMAND} down")
    former, contents = restore(config.store_url, options.file)
    print(f"restored: {contents}" + (f"\nthe former store is in {former}" if former.exists() else ""))
    return 0


def _migrate(options: Options) -> int:
    from sentinel.store.migrations import NEWEST, migrate

    version = NEWEST if options.to is None else options.to
    store = _store(_loaded())  # opening it migrates it to the newest version
    with store.write() as rows:
        migrate(rows, version)
    print(f"the store has schema version {version}; this code uses {NEWEST} and migrates the store when it opens it")
    return 0


def _models(options: Options) -> int:
    from sentinel.commands import releases
    from sentinel.store.releases import promote, read_active_release

    config = _loaded()
    folder = config.release.parent
    if options.verb == "fetch":
        url = options.url if "://" in options.url else f"{config.releases_url or ''}/{options.url}.tar.gz"
        print(releases.fetch(url, options.sha256, folder))
        return 0
    if options.verb == "compare":
        from sentinel.workers.shadow import compare

        print("\n".join(compare(_store(config), options.name)))
        return 0
    if options.verb == "promote":
        sha256 = promote(_store(config, create=True), config.release, options.name)
        print(f"{options.name} is the active release from the next cadence on; sha256 {sha256}")
        return 0
    states, active = list(releases.releases(folder)), read_active_release(config)
    if active.parent == folder and active.name not in dict(states):
        states.append((active.name, f"{releases.BROKEN}: expected a folder with release.json, found none"))
    for name, state in states:
        print(f"{'*' if folder / name == active else ' '} {name}  {state}")
    return int(options.verb == "verify" and any(state.startswith(releases.BROKEN) for _, state in states))


def _docs(options: Options) -> int:
    from sentinel.commands import docs

    print(docs.build(options.output))
    return 0


def _test(options: Options) -> int:
    from sentinel.commands import testing

    return testing.run_tests(options.rest)


if __name__ == "__main__":
    sys.exit(main())
