"""Read the configuration: one file and the environment, validated once and passed on as values.

The defaults below are overridden by `config.yaml`, and that by environment variables `SENTINEL__SECTION__KEY`. For the
folders of a training, Aetherscan's variables AETHERSCAN_DATA_PATH, _MODEL_PATH and _OUTPUT_PATH are read too. Unknown
keys are errors, and all errors are listed at once. Relative paths start at the folder of the file. Secrets are not part
of the configuration: `secret` reads them where they are used, from the environment or from a file that the environment
names, so a dump of the configuration never holds one.
"""

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import date
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from aetherscan.errors import OptionsError
from aetherscan.options.cadence import BeamRoles, CadenceRules
from aetherscan.options.declare import MOST_THREADS
from aetherscan.options.search import SearchSettings
from aetherscan.options.train import TrainSettings
from sentinel.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PACKAGED = Path(__file__).resolve().parent / "packaged"
"""Default configuration and release in an installed package; a checkout has them at its top."""
PREFIX = "SENTINEL__"
SECRETS = (
    *("SLACK_BOT_TOKEN", "SENTINEL_WEBHOOK_TOKEN", "SENTINEL_WEBHOOK_URL"),
    *("SENTINEL_SKYPORTAL_TOKEN", "SENTINEL_KAFKA_PASSWORD"),
)
SIZE = r"^(?i:auto|(\d+(?:\.\d+)?) *(?:([kmgtp]?)(i?)b)?)$"
"""A size in bytes, such as 3 GiB or 500 MB; auto; or a fraction of the memory of the machine."""
LEAST_MEMORY = 5e8
"""A worker with a release in memory needs more, bytes."""
CHANNEL = r"^[CDG][A-Z0-9]+$"
"""Id of a Slack channel. A name such as #general takes messages, but no edits, pictures or look at the history."""
MOST_TEXT = 2**20
"""Bytes of a configuration or of a secret."""
MOST = 2**63
"""Integers of the store and of arrays are less than this."""
LONGEST_S = 2**32
"""Longer times overflow the clocks and waits of the system."""
SHORTEST_S = 0.01
"""Shorter periods leave no time for the work between them, seconds."""
LONGEST_FOUND = 100
"""Characters of a wrong value that an error message repeats."""
MOST_IN_FLIGHT = 2**16
"""Cadences that may be leased at once: more than the workers of any scheduler."""
MOST_REMEMBERED = 1_000_000
"""Cadences whose lines are remembered: a few GB."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def has_secret(name: str) -> bool:
    """Return whether a secret is set. An unreadable file counts as set, so that it does not fail a search."""
    try:
        return secret(name) is not None
    except ConfigError:
        return True


def secret(name: str) -> str | None:
    """Return a secret from the environment: from `NAME`, or from the file that `NAME_FILE` names.

    Raises:
        ConfigError: the file cannot be read.
    """
    if value := os.environ.get(name):
        return value
    if not (path := os.environ.get(f"{name}_FILE")):
        return None
    try:
        return _text(Path(path)).strip() or None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{name}_FILE: expected a file that can be read, found {error}") from error


def _text(path: Path) -> str:
    """Return the text of a small file.

    Raises:
        OSError: it is too large or a FIFO, or cannot be read.
        UnicodeError: it is not UTF-8.
    """
    if path.is_fifo():  # whose reader waits for a writer, and leaves nothing to the next reader
        raise OSError(f"a FIFO: {path}")
    with path.open("rb") as file:
        text = file.read(MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise OSError(f"more than {MOST_TEXT} bytes: {path}")
    return text.decode()


def _url(text: str) -> str:
    """Return the URL of an HTTP server; the error does not repeat it, because it may hold a secret."""
    try:
        address = urlsplit(text)
        known = address.scheme in {"http", "https"} and address.hostname and not re.search(r"\s", text)
        _ = address.port
    except ValueError as error:
        raise PydanticCustomError("secret", "expected a URL: {why}", {"why": str(error)}) from error
    if not known:
        raise PydanticCustomError(
            "secret", "expected a URL: https://HOST or http://HOST, with or without port and path"
        )
    return text


def _channel(text: str) -> str:
    if not re.fullmatch(CHANNEL, text):
        raise ValueError("expected the id of a channel, such as C0123456789, not its name")
    return text


def _ip_address(text: str) -> str:
    """Return the address of a proxy in its canonical form."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise ValueError("expected an IP address, such as 127.0.0.1") from error


def _worker_memory(text: str) -> str:
    """Return the memory limit of a worker: enough to hold a release."""
    count, unit, binary = re.fullmatch(SIZE, text).groups()  # type: ignore[union-attr]
    is_share = unit is None and count and 0 < float(count) <= 1
    power = " kmgtp".index((unit or " ").lower())
    if count and not is_share and float(count) * (1024 if binary else 1000) ** power < LEAST_MEMORY:
        raise ValueError(f"expected at least {LEAST_MEMORY / 1e6:g} MB, auto, or a fraction of the memory up to 1")
    return text


Url = Annotated[str, AfterValidator(_url)]
Patterns = tuple[Annotated[str, Field(min_length=1)], ...]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_path(cls, value: Any, info: ValidationInfo) -> Any:
        if "Path" not in str(cls.model_fields[str(info.field_name)].annotation):
            return value
        for part in map(str, value if isinstance(value, list | tuple) else [value]):
            if not part:
                raise ValueError("expected a path")  # `Path` takes the empty string for the current folder
            if "\0" in part:
                raise ValueError("expected a path without null characters")
            if part.split("/")[0] == "~":
                raise ValueError("expected a path without ~, which no shell expands here")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _bounded(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        most = LONGEST_S if name.endswith("_s") else MOST
        is_number = re.search(r"\b(int|float)\b", str(cls.model_fields[name].annotation))
        parts = value if isinstance(value, list | tuple) else [value]
        if is_number and any(isinstance(part, bool) for part in parts):  # which would be 1 or 0
            raise ValueError("expected a number")
        if is_number and not all(_below(part, most) for part in parts):
            raise ValueError(f"expected a finite number, less than {most}")
        if is_number and re.search("(?<!hz)_s$", name) and any(map(_is_tiny, parts)):
            raise ValueError(f"expected at least {SHORTEST_S} s")
        return value


def _below(value: Any, most: int) -> bool:
    """Return whether a number, or text that is one, is finite and less than `most`; other values are checked later."""
    try:
        return abs(float(value)) < most
    except OverflowError:
        return False
    except (TypeError, ValueError):
        return True


def _is_tiny(value: Any) -> bool:
    """Return whether a number, or text that is one, is a time too short for the work between two others; 0 is none."""
    try:
        return 0 < float(value) < SHORTEST_S
    except (TypeError, ValueError, OverflowError):
        return False


class Complete(_Section):
    """Conditions for a complete file, in addition to those of its reader: it opens and has all its chunks."""

    settled: bool = True
    decoded: bool = True
    siblings: bool = True


class Signals(_Section):
    """Signs that a file is complete before it has settled."""

    done_file: bool = True
    manifest: bool = True
    move_done: bool = True
    renamed: bool = False


class Watch(_Section):
    """Which files are watched, when a file is complete, and what happens to partial cadences."""

    roots: Annotated[tuple[Path, ...], Field(min_length=1)] = (Path("data/incoming"),)
    include: Annotated[Patterns, Field(min_length=1)] = ("**/*.h5", "**/*.hdf5", "**/*.fil")
    exclude: Patterns = ("**/*.creating.*",)
    scan_s: PositiveFloat = 5.0
    settle_s: NonNegativeFloat = 10.0
    use_events: bool = True
    look_again_s: PositiveFloat = 30.0
    give_up_s: PositiveFloat = 86_400.0
    max_channel_hz: PositiveFloat = 100.0
    partial: Literal["hold", "search"] = "hold"
    partial_after_s: PositiveFloat = 86_400.0
    complete: Complete = Complete()
    signals: Signals = Signals()


class Cluster(_Section):
    """Workers: a Dask LocalCluster on this machine, or a scheduler elsewhere."""

    scheduler: Annotated[str, Field(pattern=r"^(tcp|tls)://.+:\d+$")] | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    workers: Annotated[int, Field(gt=0, le=MOST_THREADS)] = 1
    memory_limit: Annotated[str, Field(pattern=SIZE), AfterValidator(_worker_memory)] | None = "3 GiB"
    in_flight: Annotated[int, Field(gt=0, le=MOST_IN_FLIGHT)] | None = None

    @model_validator(mode="after")
    def _only_ours_may_send_code(self) -> Self:
        address = urlsplit(self.scheduler or "")
        here = address.hostname in (None, "localhost", "::1") or str(address.hostname).startswith("127.")
        _ = address.port  # a ValueError if there is no such port
        if address.scheme == "tcp" and not here:
            raise ValueError("a scheduler runs any code that it receives: expected tls://, or tcp:// on this machine")
        if address.scheme == "tls" and not (self.tls_ca and self.tls_cert and self.tls_key):
            raise ValueError("tls:// needs tls_ca, tls_cert and tls_key, which decide who may connect")
        return self


def _mirror(name: str, settings: Any, **defaults: Any) -> Any:
    """Return a section with the options of a dataclass, which checks the values and is returned by `settings()`."""

    class Base(_Section):
        def settings(self, **changes: Any) -> Any:
            return settings(**{**self.model_dump(), **changes})

        @model_validator(mode="after")
        def _valid(self) -> Self:
            self.settings()
            return self

    options: Any = {
        item.name: (item.type, defaults.get(item.name, item.default)) for item in fields(settings) if item.metadata
    }
    return create_model(name, __base__=Base, **options)


Cadence: Any = _mirror("Cadence", CadenceRules)
Beams: Any = _mirror("Beams", BeamRoles)
Search: Any = _mirror("Search", SearchSettings, threads=2)
Train: Any = _mirror("Train", TrainSettings)
FOLDERS = {f"{kind}_path": f"AETHERSCAN_{kind.upper()}_PATH" for kind in ("data", "model", "output")}


class Store(_Section):
    """The database: SQLite in `state_dir` unless there is a URL."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        try:
            address = urlsplit(url or "")
            known = not url or (re.fullmatch(r"sqlite|postgresql(\+psycopg2?)?", address.scheme) and "://" in url)
            absolute = address.path.startswith("//") and bool(address.path.strip("/")) and not address.query
            known = known and (address.scheme != "sqlite" or absolute)  # each program has its own current folder
            password, _ = address.password, address.port
        except ValueError as error:
            raise PydanticCustomError("secret", f"expected a URL: {error}") from error
        if not known:
            raise PydanticCustomError("secret", "expected sqlite:////ABSOLUTE/PATH or postgresql://HOST/DATABASE")
        if password:
            remedy = "set PGPASSWORD, or PGPASSFILE to a file that holds it"
            raise PydanticCustomError("secret", f"expected no password here: {remedy}")
        return url


class Slack(_Section):
    """Messages to a Slack channel."""

    channel: Annotated[str, AfterValidator(_channel)] | None = None
    api_url: Url = "https://slack.com/api/"
    per_second: PositiveFloat = 1.0
    per_hour: PositiveInt = 30
    pictures: PositiveInt = 3


class Webhook(_Section):
    """Messages to another program."""

    url: Url | None = None
    per_second: PositiveFloat = 1.0
    per_hour: PositiveInt = 30


class SkyPortal(_Section):
    """Messages to a SkyPortal, as sources with comments."""

    url: Url | None = None
    group_ids: tuple[PositiveInt, ...] = ()
    per_second: PositiveFloat = 1.0
    per_hour: PositiveInt = 30


class Kafka(_Section):
    """Alerts on a Kafka topic, of candidates that a person has labeled `candidate`."""

    servers: Annotated[str, Field(pattern=r"^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$")] | None = None
    topic: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")] = "sentinel.alerts"
    username: str | None = None
    per_second: PositiveFloat = 1.0
    per_hour: PositiveInt = 30

    def client(self, password: str | None) -> dict[str, str]:
        """Return the settings of librdkafka: TLS unless all servers are this machine, SCRAM if there is a user."""
        hosts = {server.partition(":")[0] for server in str(self.servers).split(",")}
        security = "PLAINTEXT" if hosts <= {*LOOPBACK} else "SSL"
        if not self.username:
            return {"bootstrap.servers": str(self.servers), "security.protocol": security}
        login = {"sasl.username": self.username, "sasl.password": password or "", "sasl.mechanism": "SCRAM-SHA-512"}
        return {"bootstrap.servers": str(self.servers), "security.protocol": f"SASL_{security}", **login}


class Web(_Section):
    """HTTP for monitors and people: on loopback, with TLS, or behind a proxy that is named."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = 9421
    certificate: Path | None = None
    key: Path | None = None
    url: Url | None = None
    read_only: bool = False
    hosts: Patterns = ()
    proxies: tuple[Annotated[str, AfterValidator(_ip_address)], ...] = ()
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None

    @property
    def is_local(self) -> bool:
        """Whether only programs of this host reach the address."""
        return self.host in LOOPBACK

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        tls = self.certificate and self.key
        if self.port is not None and not self.is_local and not tls and not self.proxies:
            raise ValueError(
                f"{self.host} is not loopback: expected web.certificate and web.key, or web.proxies, found none"
            )
        if self.user_header and not self.proxies:
            raise ValueError("user_header is believed from a proxy only: expected its address in web.proxies")
        return self


class Stamps(_Section):
    """Disk space of the stamps, in 10^9 bytes; 0: none are written."""

    budget_gb: NonNegativeFloat = 20.0


class MemoryOfLines(_Section):
    """How many cadences a candidate is compared with, and how many are kept."""

    cadences: Annotated[int, Field(ge=0, le=MOST_REMEMBERED)] = 40
    keep: Annotated[int, Field(ge=0, le=MOST_REMEMBERED)] = 20_000


class MuteZone(_Section):
    """A frequency range whose candidates are stored and shown, and not announced."""

    low_mhz: PositiveFloat
    high_mhz: PositiveFloat
    reason: Annotated[str, Field(min_length=1, max_length=200)]
    since: date | None = None
    until: date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low_mhz >= self.high_mhz:
            raise ValueError(f"expected low_mhz below high_mhz, found {self.low_mhz:g} and {self.high_mhz:g}")
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"expected since not after until, found {self.since} and {self.until}")
        return self

    def holds(self, mhz: float, day: date) -> bool:
        """Return whether the zone holds a frequency on a day of observation (UTC); both last days are part of it."""
        return self.low_mhz <= mhz <= self.high_mhz and (self.since or day) <= day <= (self.until or day)


class Injections(_Section):
    """Canaries and blind injections, which measure what the service finds."""

    canary_s: NonNegativeFloat = 3600.0
    canary_dir: Path | None = None
    alarm_s: PositiveFloat = 900.0
    blind_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    review_share: Annotated[float, Field(ge=0, le=1)] = 1.0


class Config(_Section):
    """All settings of the service."""

    state_dir: Path = Path("var")
    picture_dir: Path | None = None
    release: Path = Path("models/equinox")
    shadow: Path | None = None
    releases_url: Url | None = None
    lease_s: Annotated[float, Field(ge=1)] = 120.0
    max_attempts: PositiveInt = 3
    retry_after_s: PositiveFloat = 30.0
    search_limit_s: PositiveFloat = 3600.0
    watch: Watch = Watch()
    cadence: Cadence = Cadence()
    beams: Beams = Beams()
    cluster: Cluster = Cluster()
    search: Search = Search()
    train: Train = Train()
    store: Store = Store()
    slack: Slack = Slack()
    webhook: Webhook = Webhook()
    skyportal: SkyPortal = SkyPortal()
    kafka: Kafka = Kafka()
    web: Web = Web()
    injections: Injections = Injections()
    stamps: Stamps = Stamps()
    memory: MemoryOfLines = MemoryOfLines()
    mute: tuple[MuteZone, ...] = ()

    @field_validator("state_dir")
    @classmethod
    def _part_of_a_url(cls, path: Path) -> Path:
        if "?" in str(path):
            raise ValueError("expected a path without ?, which ends the path in the URL of the store")
        if not str(path).isascii() and str(path) != str(path).encode(errors="ignore").decode():
            raise ValueError("expected a path in UTF-8")
        return path

    @property
    def cadence_rules(self) -> CadenceRules:
        """Rules by which observations are grouped."""
        return self.cadence.settings(beams=self.beams.settings())

    @property
    def canaries(self) -> Path:
        """Folder of the canaries: watched like the roots, never announced."""
        return self.injections.canary_dir or self.state_dir / "canary"

    @property
    def sends_canaries(self) -> bool:
        """Whether canaries are written. Hosts that share a store need a folder that all of them see."""
        return bool(self.injections.canary_s and (self.injections.canary_dir or not self.store.url))

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.store.url or f"sqlite:///{self.state_dir / 'sentinel.db'}"

    @property
    def has_store(self) -> bool:
        """Whether the store may exist: SQLite creates its file when it is first opened."""
        backend, _, path = self.store_url.partition(":///")
        return backend != "sqlite" or Path(path).exists()

    @property
    def service(self) -> str:
        """Name of the pool of workers: the address of the scheduler, or the name of this host."""
        return self.cluster.scheduler or socket.gethostname()

    @property
    def pictures(self) -> Path:
        """Folder of the waterfalls; several hosts need one that all of them see."""
        return self.picture_dir or self.state_dir / "pictures"

    @property
    def stamp_bytes(self) -> int:
        """Disk space of all stamps together, bytes."""
        return int(self.stamps.budget_gb * 1e9)

    @property
    def slack_channel(self) -> str | None:
        """Slack channel of the messages; None without a channel or a token."""
        channel = os.environ.get("SLACK_CHANNEL") or self.slack.channel
        return channel if has_secret("SLACK_BOT_TOKEN") else None

    @property
    def webhook_url(self) -> str | None:
        """Address of the webhook, from the environment or the configuration; None without one."""
        return secret("SENTINEL_WEBHOOK_URL") or self.webhook.url

    @property
    def posters(self) -> tuple[str, ...]:
        """Names of the posters that are configured."""
        places = {"slack": self.slack_channel, "webhook": has_secret("SENTINEL_WEBHOOK_URL") or self.webhook.url}
        places |= {"skyportal": self.skyportal.url, "kafka": self.kafka.servers}
        return tuple(name for name, place in places.items() if place)

    @property
    def sha256(self) -> str:
        """Checksum of the settings that decide what a search finds."""
        return hashlib.sha256(self.search.model_dump_json().encode()).hexdigest()


SECTIONS = "|".join(Config.model_fields).upper()


class _Environment(EnvSettingsSource):
    """Environment variables; a list is JSON, or its items with commas between them (paths: colons too)."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return the items of a list, or what the JSON says."""
        text = str(value).strip()
        if get_origin(field.annotation) is not tuple or text.startswith("["):
            return super().decode_complex_value(field_name, field, value)
        between = "[,:]" if Path in get_args(field.annotation) else ","
        return [item.strip() for item in re.split(between, text)]


class _Layers(Config, BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return _Environment(settings_cls), init_settings  # the file's values are passed in


def config_path(named: str | None = None) -> Path | None:
    """Return the path of the file: `named`, or `SENTINEL_CONFIG`, or `config.yaml` if it exists.

    That file is at the top of the checkout; where the package was installed by pip, in the current folder.
    """
    if path := named or os.environ.get("SENTINEL_CONFIG"):
        return Path(path).absolute()
    default = (Path.cwd() if PACKAGED.exists() else ROOT) / "config.yaml"
    return default if default.exists() else None


def _mistakes(error: ValidationError) -> Iterator[str]:
    for mistake in error.errors():
        raised = mistake.get("ctx", {}).get("error")
        if isinstance(raised, OptionsError):
            yield from (".".join(map(str, [*mistake["loc"], line])) for line in str(raised).splitlines())
        else:
            found = "" if mistake["type"] == "secret" else f", found {_short(mistake['input'])}"
            yield f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}{found}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python converts no integer this long
        text = "a number of more than 4,300 digits"
    return text if len(text) <= LONGEST_FOUND else f"{text[:LONGEST_FOUND]}..."


def changed(section: Any, given: Mapping[str, Any]) -> Any:
    """Return a section of the configuration, changed by the options that are not None.

    Raises:
        ConfigError: every invalid value, one per line.
    """
    mistakes: list[str] = []
    given = {name: value for name, value in given.items() if value is not None}
    while True:
        try:
            valid = type(section).model_validate(section.model_dump() | given)
        except ValidationError as error:
            mistakes += _mistakes(error)
            # A value of the wrong type hides errors that concern several values: validate again without it.
            hiding = given.keys() & {mistake["loc"][0] for mistake in error.errors() if mistake["loc"]}
            given = {name: value for name, value in given.items() if name not in hiding}
            if hiding:
                continue
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return valid


def train_settings(config: "Config", given: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a training: the configuration, changed by options that are text.

    Raises:
        ConfigError: every invalid value, one per line.
    """
    return changed(config.train, given).settings()


def _environment_mistakes() -> Iterator[str]:
    """Yield a line for each variable of this program that is misspelled, unreadable or of no use."""
    for name in os.environ:
        upper = name.upper()  # as pydantic reads it
        if upper.startswith(PREFIX):
            if upper.removeprefix(PREFIX).split("__")[0].lower() not in Config.model_fields:
                yield f"{name}: no such section or key"
        elif upper.removesuffix("_FILE") not in SECRETS and re.match(f"SENTINEL_({SECTIONS})(_|$)", upper):
            yield f"{name}: expected two underscores between SENTINEL, section and key, as in {PREFIX}WATCH__SCAN_S"
    checks = {"SLACK_CHANNEL": _channel, "SENTINEL_WEBHOOK_URL": _url}
    for name in (*SECRETS, "SLACK_CHANNEL"):
        try:
            if (value := secret(name)) and name in checks:
                checks[name](value)
        except ConfigError as error:
            yield str(error)
        except ValueError as error:
            yield f"{name}: {error}"


def _placed(value: Any, base: Path) -> Any:
    """Return a value with every relative path in it below `base`."""
    if isinstance(value, Path):
        return base / value
    if isinstance(value, dict):
        return {name: _placed(item, base) for name, item in value.items()}
    return [_placed(item, base) for item in value] if isinstance(value, list | tuple) else value


class _Unique(yaml.SafeLoader):
    """Reads YAML, and refuses a key that stands twice in a section."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return the mapping of a node."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := {key for key in keys if keys.count(key) > 1}:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"expected each key once, found {', '.join(sorted(twice))} twice from line {line} on")
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    text = _text(path)
    if channel := re.search(r"(?m)^[^#\n]*\bchannel:[ \t]+(#\w\S*)[ \t]*$", text):
        raise ConfigError(
            f"{path}: slack.channel: expected the id of a channel, such as C0123456789, found {channel[1]}"
        )
    return yaml.load(text, _Unique) or {}  # noqa: S506


def place_mistakes(config: Config) -> list[str]:
    """Return a line for each folder of the service that cannot be where the configuration puts it."""
    own = {"state_dir": config.state_dir, "picture_dir": config.picture_dir}
    own |= {"injections.canary_dir": config.injections.canary_dir}
    below = [
        (name, folder, root)
        for name, folder in own.items()
        for root in config.watch.roots
        if folder and folder.resolve().is_relative_to(root.resolve())
    ]
    roots = [root.resolve() for root in config.watch.roots]
    twice = [(a, b) for a, b in permutations(roots, 2) if a.is_relative_to(b)]
    folders = (*config.watch.roots, *filter(None, own.values()), config.pictures)
    files = [path for path in folders if path.exists() and not path.is_dir()]
    return [
        *(
            f"{name}: expected a folder that is not watched, found {at} below the root {root}"
            for name, at, root in below
        ),
        *(f"watch.roots: expected each folder once, found {a} below {b}" for a, b in dict.fromkeys(twice)),
        *(f"{path}: expected a folder, found a file" for path in dict.fromkeys(files)),
    ]


def load_config(path: Path | None) -> Config:
    """Read the configuration from `path` (None: defaults) and the environment.

    Raises:
        ConfigError: every error, one per line: where, what was expected, what was found.
    """
    mistakes = list(_environment_mistakes())
    values: Any = {}
    try:
        values = _read(path) if path else {}
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
        layers = _Layers(**values)
    except SettingsError as error:
        mistakes.append(f"{error}: expected text, or a list such as a,b: {error.__cause__}")
    except ValidationError as error:
        mistakes += _mistakes(error)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # also a date or number that YAML refuses
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if mistakes:
        raise ConfigError("\n".join(f"{path or 'environment'}: {mistake}" for mistake in mistakes))
    base = path.parent if path else Path.cwd()
    found = _placed(layers.model_dump(), base)
    own = PACKAGED if PACKAGED.exists() else ROOT
    for key, relative in (("release", layers.release), ("shadow", layers.shadow)):
        if relative and not found[key].exists() and (own / relative).exists():
            found[key] = own / relative  # the configuration is in another folder than the program
    found["state_dir"] = Path(found["state_dir"]).resolve()  # one service has one path, whatever links lead to it
    for name, variable in FOLDERS.items():
        if named := os.environ.get(variable):
            found["train"][name] = Path(named).absolute()
    return Config.model_validate(found)
