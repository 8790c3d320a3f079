"""The commands: parse, call one function, print. Only the standard library is imported until a command runs.

Exit status: 0 well, 1 a warning or a failure that was told, 2 a mistake in the command or the configuration or a
critical state, 3 unknown.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VERSION = "0.1.0"
Options = argparse.Namespace


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command; each help ends with an example."""
    top = argparse.ArgumentParser(
        prog="sentinel.py", description="Search radio-telescope cadences for technosignatures as they land."
    )
    top.add_argument("--version", action="version", version=VERSION)
    top.add_argument("--config", metavar="FILE", help="configuration (default: SENTINEL_CONFIG, or config.yaml)")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, does: Callable[[Options], int], text: str, example: str) -> argparse.ArgumentParser:
        one = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  ./sentinel.py {example}",
        )
        one.set_defaults(does=does)
        return one

    _service_commands(command)
    _science_commands(command)
    _look_commands(command)
    test = command("test", _test, "run the whole suite", "test -k cadence")
    test.add_argument("rest", nargs=argparse.REMAINDER, help="handed on to pytest")
    return top


def _service_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    up = command("up", _up, "start the service and say where to look", "up")
    up.add_argument("--foreground", action="store_true", help="stay in front, logs on standard output")
    for one in (up, command("down", _down, "stop the service; nothing it started is left", "down")):
        one.add_argument("--docker", action="store_true", help="in docker compose")
    command("restart", _restart, "down, then up", "restart").set_defaults(foreground=False, docker=False)
    text = "tell how the service is; exit 0 ok, 1 warning, 2 critical, 3 unknown"
    status = command("status", _status, text, "status --json")
    status.add_argument("--json", action="store_true", help="every fact, for programs")
    status.add_argument("--probe", action="store_true", help="one line, for monitors")
    logs = command("logs", _logs, "show the logs", "logs -f watcher")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines are written")
    logs.add_argument("name", nargs="*", metavar="NAME", help="cluster, watcher, poster, web (default: all)")
    command("doctor", _doctor, "check disk, folders, store, release and Slack before trusting the machine", "doctor")
    text = "land a synthetic cadence and follow it to its candidate, picture and message"
    demo = command("demo", _demo, text, "demo")
    demo.add_argument("--keep", action="store_true", help="leave the files in the watched folder")
    demo.add_argument("--suffix", choices=(".h5", ".fil"), default=".h5", help="kind of file (default %(default)s)")
    demo.add_argument("--slow", type=float, default=0.0, metavar="S", help="copy each file in pieces, over S seconds")
    demo.add_argument("--seed", type=int, default=1, help="another seed is another sky (default %(default)s)")


def _science_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    search = command("search", _search, "search files once, without the service", "search data/*.h5 --output found")
    search.add_argument("files", nargs="*", metavar="FILE", help=".h5, .fil, or a .csv that lists them")
    search.add_argument("--output", type=Path, default=Path("found"), metavar="DIR", help="default %(default)s")
    search.add_argument("--format", choices=("csv", "json"), default="csv", help="of the table (default %(default)s)")
    search.add_argument(
        "--mode", choices=("tracks", "windows"), help="how signals are proposed (default: as configured)"
    )
    search.add_argument(
        "--threshold", "--classification-threshold", type=float, metavar="P",
        help="probability, 0-1 (default: the release's own)",
    )  # fmt: skip
    search.add_argument("--threads", type=int, help="that one search computes with (default: as configured)")
    search.add_argument(
        "--trace", type=float, metavar="MHZ", help="say what every stage makes of this frequency instead"
    )
    search.add_argument(
        "--release", type=Path, metavar="DIR", help="a folder of models/ (default: what the service serves)"
    )
    text = (
        ".npy of windows, (n, 6, 16, 4096) or binned by eight, in --data-path or its folder testing: a probability each"
    )
    search.add_argument("--test-files", nargs="+", default=[], metavar="FILE", help=text)
    search.add_argument(
        "--encoder-path", metavar="FILE", help=".onnx or .keras, instead of the release's; needs --rf-path"
    )
    search.add_argument("--rf-path", metavar="FILE", help="forest, .skops, instead of the release's")
    search.add_argument("--config-path", metavar="FILE", help="release.json of a release: the same as --release")
    search.add_argument(
        "--per-replica-batch-size", type=_count, default=256, metavar="N", help="windows scored at once"
    )
    for kind in ("data", "model", "output"):
        search.add_argument(f"--{kind}-path", metavar="DIR", help=f"as AETHERSCAN_{kind.upper()}_PATH; see train")
    search.add_argument("--save-tag", metavar="TAG", help="folder of the table in --output-path (default: now)")
    train = command("train", _train, "train a release", "train --save-tag test_v1 --num-training-rounds 5")
    train.add_argument(
        "--output", type=Path, metavar="DIR", help="of the release (default: the tag's, in --model-path)"
    )
    _train_options(train)
    evaluate = command("evaluate", _evaluate, "judge a release by skies that are known", "evaluate --output judged")
    evaluate.add_argument("--output", type=Path, default=Path("judged"), metavar="DIR", help="default %(default)s")
    evaluate.add_argument(
        "--release", type=Path, metavar="DIR", help="a folder of models/ (default: what the service serves)"
    )
    evaluate.add_argument("--seed", type=int, default=1, help="of every sky (default %(default)s)")
    evaluate.add_argument("--cells", nargs="+", default=[], metavar="CELL", help="kinds of sky (default: all)")
    evaluate.add_argument(
        "--full", action="store_true", help="the band that published numbers take: an hour, not minutes"
    )
    evaluate.add_argument("--band-mhz", type=float, metavar="MHZ", help="of each cell, instead")
    evaluate.add_argument("--card", action="store_true", help="write what was reached into the release's CARD.md too")
    evaluate.add_argument(
        "--slice", type=Path, metavar="FILE", help="real power, an .npz that holds `data` (time, freq)"
    )
    evaluate.add_argument(
        "--baseline", action="append", default=[], choices=("matched_filter", "windows", "turbo_seti"),
        help="who else searches the first files of the zoo; turbo_seti must be installed; may be given more than once",
    )  # fmt: skip


def _train_options(train: argparse.ArgumentParser) -> None:
    """Give `train` a flag for every field of its settings; what they may be is checked with the configuration."""
    from dataclasses import fields

    from aetherscan.options.train import TrainSettings

    group: Any = train
    numbers: dict[Any, str] = {int: "N", int | None: "N", float: "X"}
    for one in fields(TrainSettings):
        if heading := one.metadata["heading"]:
            group = train.add_argument_group(heading)
        text = one.metadata["help"].replace("%", "%%")
        if one.default not in {None, ()}:
            shown = " ".join(map(str, one.default)) if isinstance(one.default, tuple) else one.default
            text += f" (default {str(shown).lower() if isinstance(shown, bool) else shown})"
        form: dict[str, Any] = {"metavar": numbers.get(one.type, one.name.rpartition("_")[2].upper())}
        if one.type is bool:
            form = {"nargs": "?", "const": "true", "metavar": "true|false"}
        elif isinstance(one.default, tuple):
            form["nargs"] = len(one.default) or "+"
        group.add_argument(f"--{one.name.replace('_', '-')}", help=text, **form)


def _look_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    def verbs(of: argparse.ArgumentParser, texts: dict[str, str]) -> dict[str, argparse.ArgumentParser]:
        held = of.add_subparsers(dest="verb", metavar="VERB", required=True)
        return {verb: held.add_parser(verb, help=text, description=text) for verb, text in texts.items()}

    candidates = command("candidates", _candidates, "look at candidates", "candidates export found.csv")
    texts = {"ls": "the newest", "show": "all of one row", "export": "all of them, as a table"}
    some = verbs(candidates, texts | {"label": "say what a person takes one for; its message will say so too"})
    some["ls"].add_argument("-n", type=int, default=20, help="how many (default %(default)s)")
    some["show"].add_argument("id", type=int)
    some["export"].add_argument("file", type=Path, help="a .csv or .json to write")
    some["label"].add_argument("id", type=int)
    some["label"].add_argument("label", choices=("candidate", "RFI", "unsure"))
    outbox = command("outbox", _outbox, "look at messages, and send again those that wait", "outbox ls")
    some = verbs(outbox, {"ls": "the newest", "retry": "try now what waits"})
    some["ls"].add_argument("-n", type=int, default=20, help="how many (default %(default)s)")
    some["retry"].add_argument("id", type=int, nargs="*", help="these only; one that was `off` too (default: all)")
    quarantine = command("quarantine", _quarantine, "look at what was set aside, and try it again", "quarantine ls")
    some = verbs(
        quarantine, {"ls": "each with its cause", "show": "a cadence's row and attempts", "requeue": "try again"}
    )
    some["show"].add_argument("id", type=int)
    some["requeue"].add_argument("ids", nargs="*", type=int, metavar="ID", help="cadences")
    some["requeue"].add_argument("--all", action="store_true", help="every quarantined cadence")
    some["requeue"].add_argument("--files", action="store_true", help="every invalid file")
    text = "search recorded cadences again and tell every difference; exit 1 where there is one"
    replay = command("replay", _replay, text, "replay --since 2d")
    replay.add_argument("--since", required=True, help="recorded since: a date (2026-08-01), an MJD, or 90m, 12h, 2d")
    config = command("config", _config, "look at the configuration", "config check")
    verbs(config, {"check": "list every mistake", "show": "every key as it is used"})
    store = command("store", _migrate, "take the store to another version of its tables", "store migrate --to 2")
    some = verbs(store, {"migrate": "up to what this release uses, or with --to to what another one does"})
    some["migrate"].add_argument("--to", type=int, metavar="N", help="version (default: the newest)")
    models = command("models", _models, "look at, check and fetch releases", "models verify")
    texts = {"ls": "releases here", "verify": "check every file's sha256", "fetch": "download one"}
    texts["promote"] = "make one the service's, from the next cadence on"
    some = verbs(models, texts | {"compare": "say where the one in the shadow disagrees with what was reported"})
    for verb in ("promote", "compare"):
        some[verb].add_argument("name", help="of a release beside the configured one")
    alias = command("fetch-models", _models, "the same as models fetch", "fetch-models URL --sha256 HEX")
    alias.set_defaults(verb="fetch")
    for one in (some["fetch"], alias):
        one.add_argument("url", help="of a tar archive, or a name below releases_url")
        one.add_argument("--sha256", required=True, help="of the archive; nothing is unpacked unless it agrees")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; every error told on purpose is one or more plain lines."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["test"]:  # pytest's options are not ours to read
        return _test(Options(rest=arguments[1:]))
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    if options.config:
        os.environ["SENTINEL_CONFIG"] = str(Path(options.config).absolute())
    from aetherscan.errors import AetherscanError, RecipeError
    from sentinel.errors import ConfigError, SentinelError

    try:
        return int(options.does(options))
    except (ConfigError, RecipeError) as error:
        print(error, file=sys.stderr)
        return 2
    except (SentinelError, AetherscanError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _loaded() -> Any:
    from sentinel.config import config_path, load_config

    return load_config(config_path())


def _store(config: Any) -> Any:
    from sentinel.store.queue import open_store

    return open_store(config.store_url)


def _served(config: Any) -> Path:
    from sentinel.store.releases import served

    if (folder := served(config)) != config.release:
        print(f"release {folder.name}, which was promoted over {config.release.name}", file=sys.stderr)
    return folder


def _docker(*arguments: str) -> int:
    checkout = str(Path(__file__).resolve().parent.parent)
    os.execvp("docker", ["docker", "compose", "--project-directory", checkout, *arguments])  # noqa: S606


def _up(options: Options) -> int:
    if options.docker:
        return _docker("up", "--detach", "--build")
    from aetherscan.detector.release import read_release
    from sentinel.config import config_path
    from sentinel.monitor.status import lacking, sharing
    from sentinel.programs import supervisor
    from sentinel.store.releases import serving

    config = _loaded()
    store = _store(config)
    release = read_release(serving(store, config.release))
    if others := sharing(config, store):
        print(f"the store is shared with the service on {', '.join(others)}: each cadence is searched and told of once")
    if supervisor.programs(config):
        print("the service is running already")
    else:
        supervisor.start(config, config_path(), foreground=options.foreground)
    supervisor.wait_ready(config, lambda: lacking(config, store), print)
    print(
        f"searching with {release.name} what lands in {', '.join(map(str, config.watch.roots))}\n"
        f"logs: {config.state_dir / 'log'}; try: ./sentinel.py demo, status, candidates ls, down"
    )
    return 0


def _down(options: Options) -> int:
    if options.docker:
        return _docker("down")
    from sentinel.programs import supervisor

    killed = supervisor.stop(_loaded())
    print(f"stopped{f'; had to kill {killed}' if killed else ''}")
    return 0


def _restart(options: Options) -> int:
    return _down(options) or _up(options)


def _status(options: Options) -> int:
    import json

    from sentinel.errors import StoreError
    from sentinel.monitor import status

    config = _loaded()
    if not config.has_store:
        print(f"unknown: no store in {config.state_dir}: ./sentinel.py up")
        return status.UNKNOWN
    try:
        seen = status.look(config, _store(config))
    except StoreError as error:
        print(f"unknown: {error}")
        return status.UNKNOWN
    if options.json:
        print(json.dumps({"level": status.WORDS[seen.level], "remarks": seen.remarks, **seen.facts}, indent=1))
    else:
        print("\n".join(status.lines(seen)[: 1 if options.probe else None]))
    return seen.level


def _logs(options: Options) -> int:
    from sentinel.programs.program import PROGRAMS

    config = _loaded()
    files = [str(config.state_dir / "log" / f"{name}.log") for name in options.name or PROGRAMS]
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
    if not supervisor.programs(config):
        print("the service does not run; start it first: ./sentinel.py up")
        return 1
    asked = {"seed": options.seed, "suffix": options.suffix, "slow_s": options.slow, "keep": options.keep}
    return int(not demo.run(config, _store(config), tell=print, **asked))


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def _search(options: Options) -> int:
    from functools import partial

    from tqdm import tqdm

    from aetherscan.options.train import find_files
    from sentinel.commands import search
    from sentinel.config import changed, train_settings
    from sentinel.errors import ConfigError

    if bool(options.files) == bool(options.test_files):
        raise ConfigError("search: expected either FILE ... or --test-files FILE ...")
    config, asked = _loaded(), {name: getattr(options, name) for name in ("mode", "threshold", "threads")}
    if options.test_files and options.trace is not None:
        raise ConfigError("--test-files: expected no --trace: plates have no frequency")
    settings = changed(config.search, asked)
    named = ("data_path", "model_path", "output_path", "save_tag")
    paths = train_settings(config, {name: getattr(options, name) for name in named})
    encoder, forest, card = (
        find_files(paths.model_path, "", [name])[0] if name else None
        for name in (options.encoder_path, options.rf_path, options.config_path)
    )
    if card and card.name != "release.json":
        raise ConfigError(f"--config-path: expected the release.json of a release, found {card}")
    release = options.release or (card.parent if card else _served(config))
    output = options.output
    if options.output_path or options.save_tag:
        output = paths.output_path / (paths.save_tag or _now())
    detect = partial(search.detector_of, release, settings, encoder, forest)
    if options.test_files:
        plates = find_files(paths.data_path, "testing", options.test_files)
        asked = {"threshold": settings.threshold, "batch": options.per_replica_batch_size, "table": options.format}
        print(search.score(plates, output, detector=detect(), **asked))
        return 0
    if options.trace is not None:
        print("\n".join(search.trace(search.listed(options.files), options.trace, detect=detect, search=settings)))
        return 0
    with tqdm(
        total=100, unit="%", disable=not sys.stderr.isatty(), bar_format="{l_bar}{bar}| {elapsed}<{remaining}"
    ) as bar:
        count = search.search(
            search.listed(options.files), output, detect=detect, search=settings,
            table=options.format, progress=lambda done: bar.update(100 * done - bar.n), tell=print,
        )  # fmt: skip
    return int(not count)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y%m%d_%H%M%S")


def _train(options: Options) -> int:
    from sentinel.config import train_settings

    config = _loaded()
    settings = train_settings(config, {name: getattr(options, name) for name in type(config.train).model_fields})
    settings.files()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what it cannot find is no news on a machine without a GPU
    from aetherscan.train.pipeline import train
    from sentinel.commands.train import TrainingLog, labelled
    from sentinel.notify.slack import SlackPoster

    folder, store = options.output or settings.model_path / (settings.save_tag or _now()), _store(config)
    poster = SlackPoster(config.slack_channel, config.slack.api_url) if config.slack_channel else None
    journal = TrainingLog(run=folder.name, store=store, poster=poster)
    judged, labels = labelled(store, (settings.time_bins, settings.bins))
    for word, became in labels.items():
        journal.say(f"labels, {word}: {', '.join(f'{count} {what}' for what, count in became.items())}")
    release = train(folder, settings, labelled=judged, labels=labels, tell=journal.say, note=journal.note)
    journal.say(f"{release.name}: sha256 {release.sha256}")
    journal.show(settings.output_path / folder.name)
    return 0


def _evaluate(options: Options) -> int:
    from aetherscan.evaluate.pipeline import judge_release
    from aetherscan.evaluate.report import add_to_card
    from aetherscan.evaluate.scenarios import CELLS
    from aetherscan.options.search import SearchSettings
    from sentinel.config import ROOT

    config, cells = _loaded(), [cell.name for cell in CELLS]
    if unknown := set(options.cells) - set(cells):
        print(f"--cells: expected some of {', '.join(cells)}, found {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    ours = ROOT / "tests" / "data" / "ddo210_coarse469_slice.npz"
    release = options.release or _served(config)
    reached = judge_release(
        release, options.output, settings=SearchSettings(**config.search.model_dump()),
        seed=options.seed, cells=options.cells, baselines=options.baseline, full=options.full,
        band_mhz=options.band_mhz, real=options.slice or (ours if ours.exists() else None),
    )  # fmt: skip
    for one in reached:
        print(f"{'ok  ' if one['met'] else 'MISS'}  {one['what']} {one['goal']}: {one['figure']['value']:.3g}")
    print(options.output / "evaluation.html")
    if options.card:
        asked = {"--seed": options.seed, "--cells": " ".join(options.cells), "--band-mhz": options.band_mhz}
        how = " ".join(f"{name} {value}" for name, value in asked.items() if value) + " --full" * options.full
        add_to_card(release / "CARD.md", f"On skies that are known: `./sentinel.py evaluate {how}`", reached)
    return 0


def _candidates(options: Options) -> int:
    from sentinel.commands import candidates

    store = _store(_loaded())
    if options.verb == "ls":
        print("\n".join(candidates.newest(store, options.n)) or "none yet")
    elif options.verb == "show":
        print(candidates.one(store, options.id))
    elif options.verb == "label":
        from getpass import getuser

        candidates.put_label(store, options.id, options.label, getuser())
    else:
        print(f"{candidates.export(store, options.file)} candidates: {options.file}")
    return 0


def _outbox(options: Options) -> int:
    from sentinel.notify import outbox

    store = _store(_loaded())
    if options.verb == "ls":
        print("\n".join(outbox.listed(store, options.n)) or "none yet")
    else:
        print(f"{outbox.retry(store, options.id)} messages are due now")
    return 0


def _quarantine(options: Options) -> int:
    from sentinel.commands import candidates

    store = _store(_loaded())
    if options.verb == "ls":
        print("\n".join(candidates.set_aside(store)) or "nothing was set aside")
    elif options.verb == "show":
        print(candidates.history(store, options.id))
    else:
        cadences = store.requeue(None if options.all else options.ids)
        print(f"queued again: {cadences} cadences, {store.look_again() if options.files else 0} files")
    return 0


def _replay(options: Options) -> int:
    from sentinel.commands import replay

    config = _loaded()
    return int(not replay.replay(config, _store(config), replay.moment(options.since), print))


def _config(options: Options) -> int:
    import yaml

    config = _loaded()
    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False) if options.verb == "show" else "no mistakes")
    return 0


def _migrate(options: Options) -> int:
    from sentinel.store.migrations import NEWEST, migrate

    wanted = NEWEST if options.to is None else options.to
    store = _store(_loaded())  # which brings it up to the newest
    with store.write() as rows:
        migrate(rows, wanted)
    print(f"the store is of version {wanted}; this release uses {NEWEST}, and takes it there when it is next used")
    return 0


def _models(options: Options) -> int:
    from sentinel.commands import releases
    from sentinel.store.releases import promote, serving

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
        sha256 = promote(_store(config), config.release, options.name)
        print(f"{options.name} serves from the next cadence on; sha256 {sha256}")
        return 0
    found, served = list(releases.releases(folder)), serving(_store(config), config.release)
    for name, state in found:
        print(f"{'*' if folder / name == served else ' '} {name}  {state}")
    return int(options.verb == "verify" and any(state.startswith(releases.BROKEN) for _, state in found))


def _test(options: Options) -> int:
    from sentinel.commands import testing

    return testing.run_tests(options.rest)


if __name__ == "__main__":
    sys.exit(main())
