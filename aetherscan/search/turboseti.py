"""Write the lines of a cadence in the formats of turboSETI (Enriquez et al. 2017, arXiv:1709.03491), version 2.3.2.

A `.dat` file lists the lines of one scan; `find_event_pipeline` reads six of them and keeps what is in the ONs only.
Its result, a CSV with a row for every event, is what `plot_event_pipeline` reads; `events_text` writes the
candidates of our search in that form. Frequencies are those at the start of the scan. SNRs are those of a matched
filter over the width of the line, where turboSETI takes one channel: a wide line has more here.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aetherscan.header import Header
from aetherscan.search.scan_hits import ScanHit

RULE = "# -------------------------- o --------------------------\n"
LINE = "# --------------------------\n"
DAT_COLUMNS = (
    *("Top_Hit_#", "Drift_Rate", "SNR", "Uncorrected_Frequency", "Corrected_Frequency", "Index", "freq_start"),
    *("freq_end", "SEFD", "SEFD_freq", "Coarse_Channel_Number", "Full_number_of_hits"),
)
EVENT_COLUMNS = (
    *("TopHitNum", "DriftRate", "SNR", "Freq", "ChanIndx", "FreqStart", "FreqEnd", "CoarseChanNum"),
    *("FullNumHitsInRange", "FileID", "Source", "MJD", "RA", "DEC", "DELTAT", "DELTAF", "max_drift_rate"),
    *("obs_length", "Hit_ID", "status", "in_n_ons", "RFI_in_range", "delta_t"),
)


def dat_text(header: Header, hits: Sequence[ScanHit], file_name: str, max_drift_hz_s: float) -> str:
    """Return the `.dat` file of a scan.

    Args:
        header: of the scan.
        hits: its lines, by channel.
        file_name: of the file that was searched; turboSETI looks for the `.h5` of the same name.
        max_drift_hz_s: largest drift rate that was searched.
    """
    facts = _facts(header, file_name, max_drift_hz_s)
    head = (
        f"{RULE}# File ID: {facts['FileID']} \n{RULE}"
        f"# Source:{facts['Source']}\n"
        f"# MJD: {header.tstart:18.12f}\tRA: {facts['RA']}\tDEC: {facts['DEC']}\n"
        f"# DELTAT: {header.tsamp:10.6f}\tDELTAF(Hz): {header.foff * 1e6:10.6f}\t"
        f"max_drift_rate: {max_drift_hz_s:10.6f}\tobs_length: {header.duration_s:10.6f}\n"
        f"{LINE}# {''.join(f'{name} {chr(9)}' for name in DAT_COLUMNS)}\n{LINE}"
    )
    return head + "".join(_dat_row(row) for row in _rows(header, hits))


def events_text(
    headers: Sequence[Header],
    on: Sequence[int],
    hits: Sequence[Sequence[ScanHit]],
    file_names: Sequence[str],
    max_drift_hz_s: float,
) -> str:
    """Return the candidates as the CSV of `find_event_pipeline` with filter threshold 3: a row each, of the first ON.

    `plot_event_pipeline` draws its line from the frequency of a row at the start of the first scan of the list: that is
    the track if the cadence begins with an ON.

    Args:
        headers: of the scans, in time order.
        on: positions of the ONs.
        hits: lines of each scan, by channel.
        file_names: of the files of the scans.
        max_drift_hz_s: largest drift rate that was searched.
    """
    first = on[0]
    about = _facts(headers[first], file_names[first], max_drift_hz_s)
    about |= {"status": "on_table_1", "in_n_ons": len(on) - 1, "RFI_in_range": 0, "delta_t": 0.0}
    events = [row for row in _rows(headers[first], hits[first]) if row["candidate"] is not None]
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(("", *EVENT_COLUMNS))
    for event in events:
        number = event["TopHitNum"] - 1
        values = {**event, **about, "Hit_ID": f"{about['Source']}_{number}"}
        table.writerow((number, *(values[name] for name in EVENT_COLUMNS)))
    return stream.getvalue()


def _facts(header: Header, file_name: str, max_drift_hz_s: float) -> dict[str, Any]:
    ra, dec = "unknown", "unknown"
    if header.has_coordinates:
        ra, dec = _angle(header.src_raj, "h"), _angle(header.src_dej, "d")
    return {
        "FileID": f"{Path(file_name).stem}.h5",
        "Source": _one_word(header.source_name).upper(),
        "MJD": f"{header.tstart:.12f}",
        "RA": ra,
        "DEC": dec,
        "DELTAT": f"{header.tsamp:.6f}",
        "DELTAF": f"{header.foff * 1e6:.6f}",
        "max_drift_rate": f"{max_drift_hz_s:.6f}",
        "obs_length": f"{header.duration_s:.6f}",
    }


def _rows(header: Header, hits: Sequence[ScanHit]) -> list[dict[str, Any]]:
    width = header.coarse_chans
    coarse = [min(max(0, int(hit.channel)), header.nchans - 1) // width for hit in hits]
    rows = []
    for number, (hit, chunk) in enumerate(zip(hits, coarse, strict=True), 1):
        ends = sorted((hit.channel, hit.end_channel))
        rows.append(
            {
                "TopHitNum": number,
                "DriftRate": round(hit.drift_hz_s, 6) + 0.0,  # never -0.0
                "SNR": round(hit.snr, 6),
                "Freq": round(header.frequency(hit.channel), 6),
                "ChanIndx": round(hit.channel) - chunk * width,
                "FreqStart": round(header.frequency(ends[0] - hit.width_channels / 2), 6),
                "FreqEnd": round(header.frequency(ends[1] + hit.width_channels / 2), 6),
                "CoarseChanNum": chunk,
                "FullNumHitsInRange": coarse.count(chunk),
                "candidate": hit.candidate,
            }
        )
    return rows


def _dat_row(row: dict[str, Any]) -> str:
    """Return a row as turboSETI's FileWriter formats it; sensitivities (SEFD) are not known and 0."""
    return (
        f"{row['TopHitNum']:06d}\t{row['DriftRate']:10.6f}\t{row['SNR']:10.6f}\t"
        f"{row['Freq']:14.6f}\t{row['Freq']:14.6f}\t{row['ChanIndx']:d}\t"
        f"{row['FreqStart']:14.6f}\t{row['FreqEnd']:14.6f}\t0.0\t{0.0:14.6f}\t"
        f"{row['CoarseChanNum']:d}\t{row['FullNumHitsInRange']:d}\t\n"
    )


def _one_word(name: str) -> str:
    """Return a name that turboSETI's readers get back whole: they cut at colons and commas, and name pictures by it."""
    kept = "".join(letter if letter.isprintable() and letter not in ":,/" else "_" for letter in name.strip())
    return kept or "UNKNOWN"


def _angle(value: float, unit: str) -> str:
    """Return an angle as blimpy writes it, such as 17h10m03.984s: the reader cuts a line at colons."""
    sign = "-" if value < 0 else ""
    whole, part = divmod(round(abs(value) * 3600, 4), 3600)
    minutes, seconds = divmod(part, 60)
    return f"{sign}{int(whole)}{unit}{int(minutes):02d}m{seconds:07.4f}s"
