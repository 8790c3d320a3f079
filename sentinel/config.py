"""The configuration: one file, read once, passed on as values.

Layers, later ones win: the defaults below, `config.yaml`, environment variables `SENTINEL__SECTION__KEY` (for the
folders of a training also the seed's, AETHERSCAN_DATA_PATH and its like). Unknown keys fail, and every mistake is
listed at once. Relative paths count from the file's folder. Secrets are no part of it: `secret` reads them from the
environment, or from a file that it names, where they are used, so that no dump of the configuration can hold one.
"""

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from aetherscan.errors import RecipeError
from aetherscan.options.search import SearchSettings
from aetherscan.options.train import TrainSettings
from sentinel.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "SENTINEL__"
SECRETS = ("SLACK_BOT_TOKEN", "SENTINEL_WEBHOOK_TOKEN", "SENTINEL_WEBHOOK_URL")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def has_secret(name: str) -> bool:
    """Return whether somebody has set a secret; reading it may still fail, and must fail no search."""
    try:
        return secret(name) is not None
    except ConfigError:
        return True


def secret(name: str) -> str | None:
    """Return a secret from the environment: from `NAME`, or from the file that `NAME_FILE` names.

    Raises:
        ConfigError: there is no such file.
    """
    if value := os.environ.get(name):
        return value
    if not (path := os.environ.get(f"{name}_FILE")):
        return None
    try:
        return Path(path).read_text().strip() or None
    except OSError as error:
        raise ConfigError(f"{name}_FILE: expected a file that can be read, found {error}") from error


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Complete(_Section):
    """Which rules a complete file must pass, beside what its reader needs: that it opens and lacks no chunk."""

    settled: bool = True
    decoded: bool = True
    siblings: bool = True


class Signals(_Section):
    """What says that a file is complete before it has settled."""

    done_file: bool = True
    manifest: bool = True
    move_done: bool = True
    renamed: bool = False


class Watch(_Section):
    """Which files are looked at, when one is complete, and what becomes of cadences that are not."""

    roots: Annotated[tuple[Path, ...], Field(min_length=1)] = (Path("data/incoming"),)
    include: tuple[str, ...] = ("**/*.h5", "**/*.hdf5", "**/*.fil")
    exclude: tuple[str, ...] = ("**/*.creating.*",)
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
    """Who searches: a LocalCluster on this machine, or a scheduler elsewhere."""

    scheduler: Annotated[str, Field(pattern=r"^(tcp|tls)://.+:\d+$")] | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    workers: PositiveInt = 1
    memory_limit: str | None = "3 GiB"
    in_flight: PositiveInt | None = None

    @model_validator(mode="after")
    def _only_ours_may_send_code(self) -> Self:
        address = urlsplit(self.scheduler or "")
        here = address.hostname in (None, "localhost", "::1") or str(address.hostname).startswith("127.")
        if address.scheme == "tcp" and not here:
            raise ValueError("a scheduler runs any code it is sent: expected tls://, or tcp:// on this machine alone")
        if address.scheme == "tls" and not (self.tls_ca and self.tls_cert and self.tls_key):
            raise ValueError("tls:// needs tls_ca, tls_cert and tls_key, which say who may send it code")
        return self


def _mirror(name: str, settings: Any, **defaults: Any) -> Any:
    """Return a section with the options of a dataclass of settings, which checks the values."""

    def check(section: Any) -> Any:
        settings(**section.model_dump())
        return section

    options: Any = {
        declared.name: (declared.type, defaults.get(declared.name, declared.default)) for declared in fields(settings)
    }
    checks: Any = {"check": model_validator(mode="after")(check)}
    return create_model(name, __base__=_Section, __validators__=checks, **options)


Search: Any = _mirror("Search", SearchSettings, threads=2)
Train: Any = _mirror("Train", TrainSettings)
FOLDERS = {f"{kind}_path": f"AETHERSCAN_{kind.upper()}_PATH" for kind in ("data", "model", "output")}


class Store(_Section):
    """Where rows live; SQLite in `state_dir` unless a URL says otherwise."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        if url and urlsplit(url).password:
            raise PydanticCustomError(
                "secret", "a password belongs in PGPASSWORD, or in the file that PGPASSFILE names"
            )
        return url


class Slack(_Section):
    """Where people hear of candidates."""

    channel: str | None = None
    api_url: str = "https://slack.com/api/"
    per_second: PositiveFloat = 1.0
    per_hour: PositiveInt = 30
    pictures: PositiveInt = 3


class Webhook(_Section):
    """Where other programs hear of candidates."""

    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    per_second: PositiveFloat = 1.0
    per_hour: PositiveInt = 30


class Web(_Section):
    """Where monitors ask how the service is: on loopback, or behind TLS."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = 9421
    certificate: Path | None = None
    key: Path | None = None
    url: str | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        beyond = self.port is not None and self.host not in LOOPBACK
        if beyond and not (self.certificate and self.key):
            raise ValueError(f"{self.host} lies beyond loopback: expected web.certificate and web.key, found none")
        return self


class Injections(_Section):
    """Signals of our own, by which it is known what would be found."""

    canary_s: NonNegativeFloat = 3600.0
    canary_dir: Path | None = None
    alarm_s: PositiveFloat = 900.0
    blind_share: Annotated[float, Field(ge=0, le=1)] = 0.02


class Config(_Section):
    """Everything the service can be told."""

    state_dir: Path = Path("var")
    picture_dir: Path | None = None
    release: Path = Path("models/azimuth")
    shadow: Path | None = None
    releases_url: str | None = None
    lease_s: PositiveFloat = 120.0
    max_attempts: PositiveInt = 3
    retry_after_s: PositiveFloat = 30.0
    search_limit_s: PositiveFloat = 3600.0
    watch: Watch = Watch()
    cluster: Cluster = Cluster()
    search: Search = Search()
    train: Train = Train()
    store: Store = Store()
    slack: Slack = Slack()
    webhook: Webhook = Webhook()
    web: Web = Web()
    injections: Injections = Injections()

    @property
    def canaries(self) -> Path:
        """Folder that the service lands files of its own in: watched like the others, and never told of."""
        return self.injections.canary_dir or self.state_dir / "canary"

    @property
    def sends_canaries(self) -> bool:
        """Whether it does: where hosts share a store, only into a folder that all of them see."""
        return bool(self.injections.canary_s and (self.injections.canary_dir or not self.store.url))

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.store.url or f"sqlite:///{self.state_dir / 'sentinel.db'}"

    @property
    def has_store(self) -> bool:
        """Whether there may be one: SQLite makes its file when it is first opened."""
        return bool(self.store.url) or (self.state_dir / "sentinel.db").exists()

    @property
    def service(self) -> str:
        """Name of the workers that this service hands cadences to: a scheduler's, or this host's own."""
        return self.cluster.scheduler or socket.gethostname()

    @property
    def pictures(self) -> Path:
        """Where waterfalls are drawn: a folder that all hosts see, where there are several."""
        return self.picture_dir or self.state_dir / "pictures"

    @property
    def slack_channel(self) -> str | None:
        """Channel that messages go to, or None when Slack is off: no token, or nowhere to post."""
        channel = os.environ.get("SLACK_CHANNEL") or self.slack.channel
        return channel if has_secret("SLACK_BOT_TOKEN") else None

    @property
    def webhook_url(self) -> str | None:
        """Address that messages are sent to, or None: from the environment where the address itself is a secret."""
        return secret("SENTINEL_WEBHOOK_URL") or self.webhook.url

    @property
    def posters(self) -> tuple[str, ...]:
        """Names of those who carry messages."""
        wanted = {"slack": self.slack_channel, "webhook": has_secret("SENTINEL_WEBHOOK_URL") or self.webhook.url}
        return tuple(name for name, where in wanted.items() if where)

    @property
    def sha256(self) -> str:
        """Hash of all that decides what a search finds."""
        return hashlib.sha256(self.search.model_dump_json().encode()).hexdigest()


class _Layers(Config, BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, validate_default=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # the file's values are passed in


def config_path(named: str | None = None) -> Path | None:
    """Return the file to read: the one named, `SENTINEL_CONFIG`, or `config.yaml` beside the packages."""
    if path := named or os.environ.get("SENTINEL_CONFIG"):
        return Path(path).absolute()
    default = ROOT / "config.yaml"
    return default if default.exists() else None


def _mistakes(error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        raised = one.get("ctx", {}).get("error")
        if isinstance(raised, RecipeError):
            yield from (".".join(map(str, [*one["loc"], line])) for line in str(raised).splitlines())
        else:
            found = "" if one["type"] == "secret" else f", found {one['input']!r}"
            yield f"{'.'.join(map(str, one['loc']))}: {one['msg']}{found}"


def changed(section: Any, given: Mapping[str, Any]) -> Any:
    """Return a section of the configuration with what was `given` (is not None) on the command line.

    Raises:
        ConfigError: every value that is not valid, one a line.
    """
    mistakes: list[str] = []
    given = {name: value for name, value in given.items() if value is not None}
    while True:
        try:
            valid = type(section).model_validate(section.model_dump() | given)
        except ValidationError as error:
            mistakes += _mistakes(error)
            # What is no value at all hides what is wrong with the rest.
            hiding = given.keys() & {one["loc"][0] for one in error.errors() if one["loc"]}
            given = {name: value for name, value in given.items() if name not in hiding}
            if hiding:
                continue
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return valid


def train_settings(config: "Config", given: Mapping[str, Any]) -> TrainSettings:
    """Return what to train: as configured, with what was `given` on the command line, where numbers are still text.

    Raises:
        ConfigError: every value that is not valid, one a line.
    """
    return TrainSettings(**changed(config.train, given).model_dump())


def _unreadable() -> Iterator[str]:
    for name in SECRETS:
        try:
            secret(name)
        except ConfigError as error:
            yield str(error)


def _placed(value: Any, base: Path) -> Any:
    """Return a value with every path in it counted from `base`."""
    if isinstance(value, Path):
        return base / value
    if isinstance(value, dict):
        return {name: _placed(one, base) for name, one in value.items()}
    return [_placed(one, base) for one in value] if isinstance(value, list | tuple) else value


def load_config(path: Path | None) -> Config:
    """Read the configuration from `path` (None: defaults) and the environment.

    Raises:
        ConfigError: every mistake, one a line: where, what was expected, what was found.
    """
    mistakes = [
        f"{name}: no such section or key"
        for name in os.environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).split("__")[0].lower() not in Config.model_fields
    ]
    mistakes += _unreadable()
    values: Any = {}
    try:
        values = yaml.safe_load(path.read_text()) or {} if path else {}
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
        layers = _Layers(**values)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        mistakes += _mistakes(error)
    if mistakes:
        raise ConfigError("\n".join(f"{path or 'environment'}: {mistake}" for mistake in mistakes))
    base = path.parent if path else Path.cwd()
    found = _placed(layers.model_dump(), base)
    for name, variable in FOLDERS.items():
        if named := os.environ.get(variable):
            found["train"][name] = Path(named).absolute()
    return Config.model_validate(found)
