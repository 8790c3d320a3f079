"""The stamp of a candidate for the waterfall in the page: what `static/waterfall.js` draws.

A reply is the length of a header (4 bytes, little-endian), the header as JSON, and a byte for each pixel of the scans
in time order. A byte is asinh of the pixel in units of its noise, from `LOW` to `HIGH` in 254 steps: 0.04 sigma in
noise, 4% of a bright pixel. 0 was not measured. A stamp never changes, so browsers keep the reply.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from sqlalchemy import select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from aetherscan.errors import ReadError
from aetherscan.header import MAD_TO_SIGMA, SECONDS_PER_DAY, Header, utc_of
from sentinel.errors import StoreError
from sentinel.store.injected import injected_row
from sentinel.store.queue import written_file
from sentinel.store.schema import candidate
from sentinel.web.candidate import candidate_id
from sentinel.web.desk import Desk, Visitor

LOW, HIGH = -3.0, 8.0
"""asinh of -10 sigma and of 1,490 sigma."""
SEGMENT = 512
"""Channels with one level of the bandpass; between their middles it is interpolated."""
MOST_ROWS = 64
"""Rows of a scan in the page; more are averaged."""
KEPT = "private, max-age=31536000, immutable"
SHOWN = ("frequency_mhz", "drift_rate_hz_s", "curvature_hz_s2", "bandwidth_hz", "tstart_mjd", "snr")


def respond(desk: Desk, request: Request, _: Visitor) -> Response:
    """Return the stamp of a candidate as bytes; 404 if none was kept."""
    number = candidate_id(request)
    shown = select(*(candidate.c[name] for name in SHOWN)).where(candidate.c.id == number)
    with desk.store.read() as rows:
        kept = written_file(rows, number, "stamp")
        row = rows.execute(shown).mappings().first() or injected_row(rows, number)
    folder = Path(kept[0]).resolve() if kept else None
    if row is None or kept is None or folder is None or not folder.is_relative_to(desk.config.pictures.resolve()):
        raise HTTPException(404, f"no stamp of candidate {number}")
    try:
        content = _packed(folder, kept[1], json.dumps({name: row[name] for name in SHOWN}))
    except (StoreError, ReadError) as error:
        raise HTTPException(404, f"no stamp of candidate {number}") from error
    headers = {"Cache-Control": KEPT, "ETag": f'"{kept[1][:32]}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


@lru_cache(maxsize=32)
def _packed(folder: Path, sha256: str, row: str) -> bytes:
    """Return the reply of a stamp; several persons look at the same candidates at about the same time."""
    from aetherscan.io import open_observation
    from sentinel.workers.stamps import read_stamp

    description, paths = read_stamp(folder, sha256)
    files = {path.name: path for path in paths}
    scans: list[tuple[str, Header, Float32[np.ndarray, "time freq"]] | None] = []
    for scan in description["scans"]:
        if scan is None:
            scans.append(None)
            continue
        with open_observation(files[scan["file"]]) as observation:
            scans.append((scan["role"], observation.header, observation.read(0, observation.header.nchans)))
    return pack(json.loads(row), scans)


def pack(row: Mapping[str, Any], scans: Sequence[tuple[str, Header, Float32[np.ndarray, "time freq"]] | None]) -> bytes:
    """Return the bytes that a page gets.

    Args:
        row: of the candidate.
        scans: role, header and power of each, in time order; None for one that is missing.
    """
    panels, parts = [], []
    for i, scan in enumerate(scans):
        snr = row["snr"][i] if i < len(row["snr"]) else None
        panel, pixels = _panel(row, snr, scan)
        panels.append(panel)
        parts.append(pixels.tobytes())
    head = {
        "version": 1,
        **{name: row[name] or 0.0 for name in SHOWN if name not in ("snr", "tstart_mjd")},
        "lo": LOW,
        "hi": HIGH,
        "panels": panels,
    }
    text = json.dumps(head, allow_nan=False).encode()
    return b"".join((struct.pack("<I", len(text)), text, *parts))


def _panel(
    row: Mapping[str, Any], snr: float | None, scan: tuple[str, Header, Float32[np.ndarray, "time freq"]] | None
) -> tuple[dict[str, Any], UInt8[np.ndarray, "time freq"]]:
    if scan is None:
        nothing = {"role": "OFF", "start_utc": " " * 19, "start_s": 0.0, "tsamp": 1.0, "rows": 0, "channels": 0}
        return {**nothing, "fch1": row["frequency_mhz"], "foff": 1e-6, "snr": None}, np.empty((0, 0), np.uint8)
    role, header, power = scan
    factor = -(-len(power) // MOST_ROWS)
    pixels = quantized(sigmas(power[: len(power) // factor * factor].reshape(-1, factor, power.shape[1]).mean(axis=1)))
    return {
        "role": role,
        "start_utc": f"{utc_of(header.tstart):%Y-%m-%d %H:%M:%S}",
        "start_s": (header.tstart - row["tstart_mjd"]) * SECONDS_PER_DAY,
        "tsamp": header.tsamp * factor,
        "rows": pixels.shape[0],
        "channels": pixels.shape[1],
        "fch1": header.fch1,
        "foff": header.foff,
        "snr": snr if snr is None or np.isfinite(snr) else None,
    }, pixels


def sigmas(power: Float32[np.ndarray, "time freq"]) -> Float32[np.ndarray, "time freq"]:
    """Return power in units of each row's noise, above the bandpass; NaN where nothing was measured.

    This is the normalization of the search in a simple form: the search loads compiled functions, a page does not.
    """
    power = np.where(np.isfinite(power) & (power != 0), power, np.nan).astype(np.float32)
    segments = max(2, power.shape[1] // SEGMENT)
    edges = np.linspace(0, power.shape[1], segments + 1).astype(int)
    middles, channels = _extended((edges[:-1] + edges[1:] - 1) / 2), np.arange(power.shape[1])
    scaled = np.full_like(power, np.nan)
    for t, line in enumerate(power):
        if np.isnan(line).all():
            continue
        whole = np.nanmedian(line)
        parts = [line[a:b] for a, b in pairwise(edges)]
        levels = [whole if np.isnan(part).all() else np.nanmedian(part) for part in parts]
        above = line / np.interp(channels, middles, _extended(levels)) - 1
        scatter = MAD_TO_SIGMA * np.nanmedian(np.abs(above))
        if scatter > 0:
            scaled[t] = above / scatter
    return scaled


def _extended(values: Any) -> Any:
    """Return values with one more on either side, on the straight line through the two at that end."""
    return np.array([2 * values[0] - values[1], *values, 2 * values[-1] - values[-2]])


def quantized(values: Float32[np.ndarray, "time freq"]) -> UInt8[np.ndarray, "time freq"]:
    """Return sigma as bytes, 0 where it is NaN."""
    steps = 1 + np.rint((np.arcsinh(values) - LOW) * (254 / (HIGH - LOW)))
    return np.where(np.isnan(steps), 0, np.clip(steps, 1, 255)).astype(np.uint8)
