"""What people are told, as text: one message for each pointing sequence, or a digest of many.

Names come from files anybody may have written: `&<>` are escaped, control characters dropped, lengths cut, so that no
name is a mention, a link, several lines, or a command to a terminal. The marks (`*bold*`, fences) are Slack's, and most
chat programs read them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

ROWS = 5
LINES = 20
LONGEST = 80
"""Characters of a name; the field's own have at most a dozen."""
STORM = 100
"""Candidates of one sequence beyond which they are most likely interference, and no pictures are shown."""


def one_line(text: object, longest: int = 10_000) -> str:
    """Return text as one line that a terminal, a table and a log show as it is."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:longest]


def plain(name: str) -> str:
    """Return a name as Slack will show it: not as a mention, a link, the end of a fence or several lines."""
    return one_line(name, LONGEST).replace("`", "'").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def remarks(row: Mapping[str, Any]) -> str:
    """Return what is known of a candidate's frequency, in a few words: nothing where nothing is."""
    teeth, before = row.get("comb_teeth"), row.get("seen_before")
    known = (
        row.get("allocations"),
        row.get("clock"),
        f"comb of {teeth} at {row['comb_spacing_hz'] / 1e3:.6g} kHz" if teeth else "",
        f"seen before: {before}" if before else "",
        f"labeled {row['label']}" if row.get("label") else "",
    )
    return one_line("; ".join(fact for fact in known if fact))


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
) -> str:
    """Return what is said of a pointing sequence: target, band, MJD, release, how many candidates, and the best.

    Args:
        target: as the headers name it.
        band_mhz: from the lowest to the highest frequency of all slices.
        tstart: MJD of the first observation.
        release: that scored them.
        candidates: rows, the best of them among these.
        total: how many there are, where these are not all.
        slices: of the band, each searched by itself.
        link: where all of them are shown.
    """
    best = sorted(candidates, key=lambda one: -one["probability"])[:ROWS]
    total = len(candidates) if total is None else total
    head = f"*{total} candidate{'s' * (total > 1)}* toward *{plain(target)}*"
    where = f"{band_mhz[0]:.3f}-{band_mhz[1]:.3f} MHz{f' in {slices} slices' if slices > 1 else ''}"
    rows = [
        f"{one['frequency_mhz']:.6f} MHz  {one['drift_rate_hz_s']:+.3f} Hz/s  "
        f"SNR {' '.join(f'{snr:.1f}' for snr in one['snr'])}  p {one['probability']:.3f}  "
        f"{remarks(one)}".rstrip()
        for one in best
    ]
    lines = [f"{head}: {where}, MJD {tstart:.5f}, release {plain(release)}", "```", *rows, "```"]
    if total > STORM:
        lines.append("_A storm, most likely of interference: every row is stored, and nothing more is said of it._")
    return "\n".join((*lines, f"<{link}|all of them>") if link else lines)


def digest_text(told: Sequence[Mapping[str, Any]], *, link: str = "") -> str:
    """Return what is said of many cadences (`count`, `target`, `band_low_mhz`, `band_high_mhz`, `tstart`) in one."""
    total = sum(one["count"] for one in told)
    rows = [
        f"{one['count']:>5}  {plain(one['target'])}  {one['band_low_mhz']:.3f}-{one['band_high_mhz']:.3f} MHz  "
        f"MJD {one['tstart']:.5f}"
        for one in told[:LINES]
    ]
    more = [f"and {len(told) - LINES} more cadences"] if len(told) > LINES else []
    head = f"*{total} candidates in {len(told)} cadences*: too many to tell of one by one; every row is stored"
    return "\n".join((head, "```", *rows, *more, "```", *([f"<{link}|all of them>"] if link else [])))
