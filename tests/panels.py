"""Stamps for tests of the waterfall in the page: a tone in the very channels of a track, and a reader of the bytes."""

import json
import struct
from dataclasses import replace

import numpy as np
from sqlalchemy import insert, select, update

from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.io import ArrayObservation
from sentinel.store.schema import artefact, candidate
from sentinel.web.stamp import pack
from sentinel.workers.stamps import write_stamp

HEADER = gbt_header(2048)


def row_of(drift=0.6, bend=None, scans=6, **changes):
    values = {"frequency_mhz": HEADER.frequency(1000), "drift_rate_hz_s": drift, "curvature_hz_s2": bend}
    values |= {
        "bandwidth_hz": 3.0,
        "tstart_mjd": HEADER.tstart,
        "snr": [30.0 if i % 2 == 0 else 0.0 for i in range(scans)],
    }
    return {**values, **changes}


def scans_of(row, pattern="ABACAD", level=0.5, header=HEADER, seed=1):
    """Return scans of noise in which each row of an ON has `level` more power in the channel of the track."""
    rng, scans = np.random.default_rng(seed), []
    for i, letter in enumerate(pattern):
        power = (1 + 0.07 * rng.standard_normal((header.ntime, header.nchans))).astype(np.float32)
        scan = replace(header, tstart=header.tstart + i * SCAN_STEP_S / 86_400)
        for t in range(header.ntime) if letter == "A" else ():
            at_s = i * SCAN_STEP_S + (t + 0.5) * header.tsamp
            hz = row["drift_rate_hz_s"] * at_s + (row["curvature_hz_s2"] or 0.0) / 2 * at_s**2
            power[t, round(scan.channel(row["frequency_mhz"] + hz * 1e-6))] += level
        scans.append(("ON" if letter == "A" else "OFF", scan, power) if letter != "." else None)
    return scans


def packed(pattern="ABACAD", level=0.5, header=HEADER, **changes):
    row = row_of(scans=len(pattern), **changes)
    return pack(row, scans_of(row, pattern, level, header))


def unpacked(content):
    """Return the header of a reply, and the pixels of each panel."""
    (size,) = struct.unpack("<I", content[:4])
    head, at, panels = json.loads(content[4 : 4 + size]), 4 + size, []
    for panel in head["panels"]:
        count = panel["rows"] * panel["channels"]
        panels.append(np.frombuffer(content, np.uint8, count, at).reshape(panel["rows"], panel["channels"]))
        at += count
    assert at == len(content)
    return head, panels


def keep_stamp(store, folder, number=1):
    """Write the stamp of a candidate, and name it in the store."""
    row = row_of()
    observations = [ArrayObservation(header, power) for _, header, power in scans_of(row)]
    sha256, size = write_stamp(folder / f"{number}.stamp", observations, row, (0, 2, 4), {})
    with store.write() as rows:
        rows.execute(update(candidate).where(candidate.c.id == number).values(**row))
        cadence_id = rows.scalar(select(candidate.c.cadence_id).where(candidate.c.id == number))
        file = {"cadence_id": cadence_id, "candidate_id": number, "kind": "stamp", "bytes": size}
        rows.execute(insert(artefact).values(**file, path=str(folder / f"{number}.stamp"), sha256=sha256))
    return folder / f"{number}.stamp"
