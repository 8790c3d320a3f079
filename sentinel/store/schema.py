"""The tables of the store, and its clock.

A file is `seen -> stable -> valid | invalid`; a cadence `forming -> ready -> leased -> done | retry_at | quarantined`,
or `skipped`; a message `pending -> sending -> sent | retry_at | unknown -> reconciled`, or `off`, or `folded` into a
digest, or `held` until a person labels. Times are seconds since 1970 by the clock of the store, so that hosts whose
clocks differ agree on the end of a lease.

The members of a cadence are *observations* (header and content), not paths, because files are renamed, moved and
copied.
A new column or table also needs a step in `sentinel.store.migrations`.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    exists,
    func,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from aetherscan.header import NOT_MEASURED

WAITING = ("forming", "ready", "leased", "retry_at")
"""States of a cadence that is not done, quarantined or skipped."""

FEW_CADENCES = 4
"""Cadences that cover a frequency, below which a line that is there in all of them says little."""

CANARY = "SENTINEL-CANARY"
"""Target of the test cadences that the service writes itself; not announced and not counted."""


class now(FunctionElement[float]):  # noqa: N801
    """The time of the store, as SQL."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


def in_last(at: Any, seconds: float) -> Any:
    """Return whether a time lies in the last `seconds`; one far ahead is of a clock that was set back since."""
    return at.between(now() - seconds, now() + seconds)


class PathText(TypeDecorator[str]):
    """A path. Bytes that are not UTF-8, which databases reject, are stored as private-use characters."""

    impl = Text
    cache_ok = True
    _ENCODE: ClassVar = {0xDC00 + byte: 0x10FE00 + byte for byte in range(0x80, 0x100)}
    _DECODE: ClassVar = {encoded: byte for byte, encoded in _ENCODE.items()}

    def process_bind_param(self, value: str | None, _: object) -> str | None:
        """Return the stored text of a path."""
        return value and value.translate(self._ENCODE)

    def process_result_value(self, value: str | None, _: object) -> str | None:
        """Return the path of a stored text."""
        return value if value is None or value.isascii() else value.translate(self._DECODE)


class Probability(TypeDecorator[float]):
    """A probability, stored as -1 where there is none, so that the least probable rows are last in any database."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: float | None, _: object) -> float:
        """Return the stored number."""
        return -1.0 if value is None else value

    def process_result_value(self, value: float | None, _: object) -> float | None:
        """Return the probability, or None."""
        return None if value is None or value < 0 else value


class Float32Array(TypeDecorator[Sequence[float]]):
    """A list of numbers, stored as little-endian float32: a fifth of the bytes of JSON."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Sequence[float] | None, _: object) -> bytes | None:
        """Return the stored bytes."""
        return None if value is None else struct.pack(f"<{len(value)}f", *value)

    def process_result_value(self, value: bytes | None, _: object) -> list[float] | None:
        """Return the numbers; of bytes that are cut short, those that are whole."""
        if value is None:
            return None
        count = len(value) // 4
        return list(struct.unpack(f"<{count}f", value[: 4 * count]))


METADATA = MetaData()


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _foreign_key(table: str, *, nullable: bool = False) -> Column[int]:
    return Column(f"{table}_id", Integer, ForeignKey(f"{table}.id"), nullable=nullable, index=True)


file = Table(
    "file",
    METADATA,
    _id(),
    Column("path", PathText, unique=True, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("inode", String(24), nullable=False),  # unsigned 64 bits on some file systems
    Column("state", String(12), nullable=False, index=True),
    Column("present", Boolean, nullable=False, default=True),
    Column("cause", Text),
    Column("observation", String(40), index=True),  # identity of header and content; null unless valid
    Column("tstart", Float, index=True),  # MJD; null unless valid
    Column("header", JSON),
    Column("changed_at", Float, nullable=False),  # when a scan first found this size, mtime and inode
    Column("look_at", Float),
    Column("grouped", Boolean, nullable=False, default=False),  # its session was grouped after it became valid
    Column("stable_at", Float),
)
cadence = Table(
    "cadence",
    METADATA,
    _id(),
    Column("key", String(64), unique=True, nullable=False),  # hash of its observations
    Column("state", String(12), nullable=False),
    Column("why", Text),
    Column("target", Text, nullable=False),
    # A letter for each scan, A for an ON, a dot for a missing OFF. SQLite ignores the length, and cannot change it.
    Column("pattern", String(6).with_variant(String(12), "postgresql")),
    Column("tstart", Float, nullable=False),
    Column("band_low_mhz", Float, nullable=False),
    Column("band_high_mhz", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("token", String(32)),
    Column("until", Float),
    Column("retry_at", Float),
    Column("created_at", Float, nullable=False),
    Column("ready_at", Float),
    Column("ended_at", Float),
    Column("run", JSON),  # stage seconds, bytes read, rows at each stage
    Column("landed_at", Float),  # when the last of its files last changed
    Column("stable_at", Float),
    Index("cadence_queue", "state", "tstart"),
)
cadence_file = Table(
    "cadence_file",
    METADATA,
    Column("cadence_id", Integer, ForeignKey("cadence.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("observation", String(40), nullable=False, index=True),
)
attempt = Table(
    "attempt",
    METADATA,
    _id(),
    _foreign_key("cadence"),
    Column("number", Integer, nullable=False),
    Column("token", String(32), unique=True, nullable=False),
    Column("worker", Text),
    Column("progress", Float),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String(12)),  # done, failed, postponed, died, expired, released, fenced
    Column("cause", Text),
    Column("service", Text),  # whose workers search it; several services may share a store
)
release = Table(
    "release",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("first_used_at", Float, nullable=False),
)
candidate = Table(
    "candidate",
    METADATA,
    _id(),
    _foreign_key("cadence"),
    _foreign_key("attempt"),
    Column("frequency_mhz", Float, nullable=False, index=True),
    Column("drift_rate_hz_s", Float, nullable=False),
    Column("curvature_hz_s2", Float),  # change of the drift rate; 0 for a straight track, null before version 9
    Column("bandwidth_hz", Float, nullable=False),
    Column("snr", JSON, nullable=False),  # of each observation, in time order
    Column("probability", Probability, nullable=False),
    Column("latents", JSON, nullable=False),  # before version 10; since then an empty list: see `latents_f32`
    Column("proposer_score", Float),
    Column("target", Text, nullable=False),
    Column("tstart_mjd", Float, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("release_name", Text, nullable=False),
    Column("release_sha256", String(64), ForeignKey("release.sha256"), nullable=False),
    Column("code_version", Text, nullable=False),
    Column("config_sha256", String(64), nullable=False),
    Column("picture", Text),
    Column("probability_spread", Float),  # between groups of trees
    Column("strangeness", Float),  # as `aetherscan.detector.strangeness` says; null if the release cannot compute it
    Column("binning", Integer),  # channels averaged in the scored snippet
    Column("allocations", Text),  # allocated services at this frequency, comma separated
    Column("clock", Text),
    Column("comb_spacing_hz", Float),
    Column("comb_teeth", Integer),
    Column("neighbours", Integer),
    Column("nearest_hz", Float),
    Column("valid", JSON),  # share of the track's pixels that were measured, in each observation
    Column("note", Text),  # observations that are missing, or of which too little was measured
    Column("scored_by", String(8)),  # forest, or gates where it does not apply; null before version 7: forest
    Column("seen_before", Integer),  # candidates of other cadences at this frequency when this was recorded, to 100
    Column("on_separation_arcmin", Float),  # largest distance between the places of the ONs
    Column("latents_f32", Float32Array),
    Column("ra_deg", Float),  # J2000, of the first ON; null without coordinates
    Column("dec_deg", Float),
    Column("telescope", String(32)),  # name of the SIGPROC number; null if unknown
    Column("barycentric_mhz", Float),
    Column("barycentric_drift_hz_s", Float),
    Column("drift_nhz", Float),  # drift rate over frequency: Hz/s/GHz
    Column("joint_snr", Float),  # of all ONs together
    Column("valid_share", Float),  # of the track's pixels in all observations
    Column("label_in_force", String(16)),  # see `sentinel.store.labels`; null without a label
    Column("muted", Text),  # reason of the mute zone that holds it; null outside
    Column("seen_cadences", Integer),  # cadences with a rejected line at this frequency,
    Column("seen_of", Integer),  # of so many that cover it
    Column("seen_targets", Integer),  # other targets among them
    Column("last_seen_mjd", Float),
    Column("kind", String(32)),  # from a classifier
    Column("kind_probability", Float),
    Column("rfi_density", Float),  # interfering lines per MHz around it; null before version 13
    Index("candidate_probability", "probability", "id"),
    Index("candidate_label", "label_in_force", "probability", "id"),
    # Every column that a filter reads, but for the target: rows are ten times as long. The facets are first, so that
    # SQLite groups by them without sorting.
    Index(
        "candidate_filter",
        *("label_in_force", "telescope", "release_name", "allocations", "comb_teeth", "seen_cadences", "kind"),
        *("tstart_mjd", "cadence_id", "attempt_id", "probability", "joint_snr", "frequency_mhz", "drift_rate_hz_s"),
        *("drift_nhz", "bandwidth_hz", "strangeness", "muted", "ra_deg", "dec_deg"),
    ),
    Index(
        "candidate_night",
        *("tstart_mjd", "frequency_mhz", "probability", "joint_snr", "label_in_force", "cadence_id", "attempt_id"),
    ),
    # PostgreSQL refuses rows with a long name in an index.
    Index("candidate_target", "target", "tstart_mjd", "cadence_id", "attempt_id").ddl_if(dialect="sqlite"),
)
artefact = Table(
    "artefact",
    METADATA,
    _id(),
    _foreign_key("cadence"),
    _foreign_key("candidate", nullable=True),
    Column("kind", String(16), nullable=False),  # waterfall, example (training data once labeled) or stamp (a folder)
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),  # empty until written; of a stamp, that of its description
    Column("bytes", BigInteger),  # of a written stamp
)
label = Table(
    "label",
    METADATA,
    _id(),
    _foreign_key("candidate"),
    Column("label", String(16), nullable=False),
    Column("by", Text),
    Column("at", Float, nullable=False),
    Column("reason", Text),  # what kind of interference, or why a candidate
    Column("note", Text),
    # How it was given: command, page, search (copied to the same line of a new search), or earlier (a version before 10
    # wrote it). Null until it is counted in `label_in_force`.
    Column("via", String(16), index=True),
    Column("blind", Boolean),  # without sight of the probability and of other persons' labels
    Column("undone_at", Float),
)
occupancy = Table(
    "occupancy",
    METADATA,
    _id(),
    _foreign_key("cadence"),
    Column("telescope_id", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("tstart", Float, nullable=False, index=True),  # MJD, UTC
    Column("band_low_mhz", Float, nullable=False),
    Column("band_high_mhz", Float, nullable=False),
    Column("bin_hz", Float, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("bins", LargeBinary, nullable=False),  # see `aetherscan.search.occupancy`
)
outbox = Table(
    "outbox",
    METADATA,
    _id(),
    _foreign_key("cadence"),
    Column("poster", String(16), nullable=False),
    Column("uid", String(32), unique=True, nullable=False),  # sent with the message, to find it again
    Column("state", String(12), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("pictures", JSON, nullable=False),
    Column("uploaded", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column(
        "doubtful", Boolean, nullable=False, default=False
    ),  # the reply was lost: search for it before sending again
    Column("ts", Text),  # Slack's identifier of the accepted message
    Column("cause", Text),
    Column("until", Float),
    Column("retry_at", Float),
    Column("created_at", Float, nullable=False),
    Column("sent_at", Float),
    Column("sequence", Text),  # telescope and target; band slices share a message
    Column("parent_id", Integer),  # the message that this one is part of
    Column("digest", Boolean),  # it summarizes messages beyond the hourly limit
    Column("posted_at", Float, index=True),  # text accepted; `sent_at`: pictures accepted too
    Column("stale_at", Float, index=True),  # the posted message needs an edit since then
    Column("edited_at", Float, index=True),
    UniqueConstraint("cadence_id", "poster"),
)
injection = Table(
    "injection",
    METADATA,
    _id(),
    Column("kind", String(8), nullable=False),  # canary: own files; blind: tone added to a live cadence
    Column("name", Text, unique=True, nullable=False),  # folder of a canary, token of a blind attempt
    Column("cadence_id", Integer),  # the rows of a canary are deleted at its end
    Column("frequency_mhz", Float, nullable=False),
    Column("drift_rate_hz_s", Float, nullable=False),
    Column("width_hz", Float, nullable=False),
    Column("snr", Float, nullable=False),  # in each ON
    Column("made_at", Float, nullable=False, index=True),
    Column("ended_at", Float),
    Column("recovered", Boolean),
    Column("probability", Float),  # of the recovered candidate
    Column("release_sha256", String(64)),
)
injected_candidate = Table(
    "injected_candidate",
    METADATA,
    # A number that no candidate has or gets, so that people who label do not know an injected signal by it.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("injection_id", Integer, nullable=False),
    _foreign_key("cadence"),
    Column("made_at", Float, nullable=False, index=True),
    Column("row", JSON, nullable=False),  # columns of `candidate`
    Column("files", JSON, nullable=False),  # path and sha256 of the waterfall and the stamp
)
injected_label = Table(
    "injected_label",
    METADATA,
    _id(),
    _foreign_key("injected_candidate"),
    Column("label", String(16), nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("reason", Text),
    Column("note", Text),
    Column("blind", Boolean),
    UniqueConstraint("injected_candidate_id", "by"),  # the first label counts: then the page tells
)
shadow = Table(
    "shadow",
    METADATA,
    _id(),
    _foreign_key("cadence"),
    Column("release_name", Text, nullable=False),
    Column("release_sha256", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("found", JSON, nullable=False),  # its candidates: frequency, drift rate, SNRs, probability
)
heartbeat = Table(
    "heartbeat",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("at", Float, nullable=False),
    Column("period_s", Float, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("facts", JSON, nullable=False),
)
meta = Table("meta", METADATA, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False))


def lacks_files(cadences: FromClause) -> ColumnElement[bool]:
    """Return, as SQL, whether a file of a cadence is not present, for the rows of `cadences` (table or alias)."""
    present = exists().where(file.c.observation == cadence_file.c.observation, file.c.present.is_(True))
    lost = exists().where(cadence_file.c.cadence_id == cadences.c.id, ~present.correlate(cadence_file))
    return lost.correlate(cadences)


def cadences_below(folder: Path) -> Select[tuple[int]]:
    """Select the ids of the cadences whose files are below a folder, whatever target their headers name."""
    below = file.c.path.startswith(f"{folder}/", autoescape=True)
    return select(cadence_file.c.cadence_id).join(file, file.c.observation == cadence_file.c.observation).where(below)


def superseded() -> ColumnElement[bool]:
    """Return, as SQL, whether a later search of its cadence has been recorded since a candidate."""
    later = attempt.alias()
    same = later.c.cadence_id == candidate.c.cadence_id
    return exists().where(same, later.c.outcome == "done", later.c.id > candidate.c.attempt_id).correlate(candidate)


def announced() -> ColumnElement[bool]:
    """Return, as SQL, whether messages count a candidate: current, in no mute zone, its ONs and OFFs measured."""
    measured = ~func.coalesce(candidate.c.note, "").contains(NOT_MEASURED)
    return ~superseded() & candidate.c.muted.is_(None) & measured


def ranking() -> ColumnElement[float]:
    """Return, as SQL, by what messages order candidates: see `sentinel.notify.messages.rank`."""
    seen, of = func.coalesce(candidate.c.seen_cadences, 0), func.coalesce(candidate.c.seen_of, 0)
    return candidate.c.probability * (1.0 - seen / (of + float(FEW_CADENCES)))


def latents_of(row: Mapping[str, Any]) -> list[float]:
    """Return the latents of a row of `candidate`, of any version."""
    packed = row.get("latents_f32")
    return list(row["latents"] if packed is None else packed)


def labeled() -> Select[Any]:
    """Select candidates with the label in force as `label`, and whether they are superseded."""
    columns = [candidate.c.label_in_force.label("label") if c.name == "label_in_force" else c for c in candidate.c]
    return select(*columns, superseded().label("superseded"))
