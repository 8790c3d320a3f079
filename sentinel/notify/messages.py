"""The text of messages: one for each pointing sequence, or a digest of many.

Target names come from file headers that anyone may have written. Before a name is shown, `&<>` are escaped, control
characters are dropped and the length is cut, so that it cannot become a mention, a link, more lines, or a terminal
command. The markup (`*bold*`, fences) is Slack's, which most chat programs accept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aetherscan.detector.release import SIGNAL
from sentinel.store.schema import FEW_CADENCES

ROWS = 5
"""Candidates listed in a message."""
DIGEST_LINES = 20
LONGEST_NAME = 80
"""Characters of a name that are shown. Real target names have at most a dozen."""
STORM = 100
"""More candidates than this in one sequence are most likely interference: no pictures are attached."""


def one_line(text: object, longest: int = 10_000) -> str:
    """Return text as one printable line of at most `longest` characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:longest]


def escaped(name: str) -> str:
    """Return a name that Slack shows as text, not as a mention, a link, the end of a fence or several lines."""
    name = one_line(name, LONGEST_NAME)
    return name.replace("`", "'").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def remarks(row: Mapping[str, Any]) -> str:
    """Return what is known about a candidate's frequency in a few words, or an empty string."""
    lines, repeats = row.get("comb_teeth"), row.get("seen_before")
    facts = (
        "superseded by a later search" if row.get("superseded") else "",
        row.get("note"),
        row.get("allocations"),
        row.get("clock"),
        looks_text(row),
        f"comb of {lines} lines, {row['comb_spacing_hz'] / 1e3:.6g} kHz apart" if lines else "",
        f"seen before: {repeats}" if repeats else "",
        seen_text(row),
        f"muted: {row['muted']}" if row.get("muted") else "",
        f"labeled {row['label']}" if row.get("label") else "",
    )
    return one_line("; ".join(fact for fact in facts if fact))


def looks_text(row: Mapping[str, Any]) -> str:
    """Return the kind of interference that a candidate looks like, or an empty string for a signal."""
    kind = row.get("kind")
    return f"looks like: {kind.replace('_', ' ')} {row['kind_probability']:.2g}" if kind and kind != SIGNAL else ""


def seen_text(row: Mapping[str, Any]) -> str:
    """Return in how many cadences a line was rejected at a candidate's frequency, or an empty string."""
    count, targets = row.get("seen_cadences"), row.get("seen_targets") or 0
    others = f", {targets} other target{'s' * (targets != 1)}" if targets else ""
    return f"lines here in {count} of {row['seen_of']} cadences{others}" if count else ""


def rank(row: Mapping[str, Any]) -> float:
    """Return the probability, less for a frequency at which other cadences had lines; messages show the highest first.

    `sentinel.store.schema.ranking` is the same as SQL.
    """
    return (row["probability"] or 0.0) * (
        1 - (row.get("seen_cadences") or 0) / ((row.get("seen_of") or 0) + FEW_CADENCES)
    )


def score_text(row: Mapping[str, Any]) -> str:
    """Return a candidate's probability, or that no forest scored it."""
    return "not scored" if row["probability"] is None else f"p {row['probability']:.3f}"


def message_text(
    target: str,
    band_mhz: tuple[float, float],
    tstart: float,
    release: str,
    candidates: Sequence[Mapping[str, Any]],
    *,
    total: int | None = None,
    slices: int = 1,
    link: str = "",
    follow_up: str = "",
) -> str:
    """Return the message on a pointing sequence: target, band, MJD, release, number of candidates, the best rows.

    Args:
        target: source name in the headers.
        band_mhz: lowest and highest frequency of all slices.
        tstart: MJD of the first observation.
        release: name of the release that scored the candidates.
        candidates: rows of the `candidate` table that include those of the highest `rank`.
        total: number of candidates, if `candidates` are not all of them.
        slices: band slices of the pointing, each searched separately.
        link: URL of the page with all candidates, or an empty string.
        follow_up: line for the observer about the best candidate, or an empty string.
    """
    total = len(candidates) if total is None else total
    in_slices = f" in {slices} slices" if slices > 1 else ""
    head = (
        f"*{total} candidate{'s' * (total != 1)}* toward *{escaped(target)}*: {_band(*band_mhz)}{in_slices}, "
        f"MJD {tstart:.5f}, release {escaped(release)}"
    )
    best = sorted(candidates, key=lambda row: -rank(row))[:ROWS]
    rows = [
        f"{row['frequency_mhz']:.6f} MHz  {row['drift_rate_hz_s']:+.3f} Hz/s  "
        f"SNR {' '.join(f'{snr:.1f}' for snr in row['snr'])}  {score_text(row)}  "
        f"{remarks(row)}".rstrip()
        for row in best
    ]
    storm = f"_More than {STORM} candidates: most likely interference. All rows are stored; no pictures are attached._"
    below = [storm] if total > STORM else [follow_up] if follow_up else []
    return _table(head, rows, [*below, *_candidate_links(best, link)], link)


def _candidate_links(rows: Sequence[Mapping[str, Any]], link: str) -> list[str]:
    """Return a line with a link to the page of each row, beside that of their cadence; a table in a fence has none."""
    pages, found, _ = link.rpartition("/cadences/")
    links = [f"<{pages}/candidates/{row['id']}|{row['frequency_mhz']:.6f} MHz>" for row in rows if "id" in row]
    return [f"look at {', '.join(links)}"] if found and links else []


def digest_text(cadences: Sequence[Mapping[str, Any]], *, link: str = "") -> str:
    """Return one message on many cadences (`count`, `target`, `band_low_mhz`, `band_high_mhz`, `tstart`)."""
    total = sum(row["count"] for row in cadences)
    rows = [
        f"{row['count']:>5}  {escaped(row['target'])}  {_band(row['band_low_mhz'], row['band_high_mhz'])}  "
        f"MJD {row['tstart']:.5f}"
        for row in cadences[:DIGEST_LINES]
    ]
    if (more := len(cadences) - DIGEST_LINES) > 0:
        rows.append(f"and {more} more cadences")
    head = f"*{total} candidates in {len(cadences)} cadences*: too many for a message each; all rows are stored"
    return _table(head, rows, [], link)


def _band(low_mhz: float, high_mhz: float) -> str:
    return f"{low_mhz:.3f}-{high_mhz:.3f} MHz"


def _table(head: str, rows: Sequence[str], remarks: Sequence[str], link: str) -> str:
    return "\n".join((head, "```", *rows, "```", *remarks, *([f"<{link}|all candidates>"] if link else [])))
