"""The header of an observation. Its values are checked once, when it is made.

Names are those of SIGPROC and BL HDF5 headers (Lebofsky et al. 2019, arXiv:1906.07391): fch1 and foff in MHz, tsamp in
seconds, tstart in MJD (UTC). Frequencies are float64: at 8.4 GHz a float32 is wrong by up to half a kilohertz.
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from aetherscan.errors import HeaderError

SECONDS_PER_DAY = 86_400.0
MAD_TO_SIGMA = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""
COARSE_MHZ = 2.9296875
"""Width of one coarse channel of the BL recorders (187.5 MHz / 64), for files that do not carry `nfpc`."""
SCAN_STEP_S = 341.0
"""Median time from the start of one scan to the start of the next, in the lists of real observing runs."""
ABSENT = "absent"
"""Source name of an OFF that a cadence is searched without."""
NOT_MEASURED = "not measured"
"""Part of the note on a candidate of which an ON or OFF was not measured: such a row is not announced."""
UNIX_EPOCH_MJD = 40_587
"""MJD of 1970-01-01T00:00 UTC."""
MIN_ROWS = 4
"""A file with fewer rows comes from an aborted scan."""
MIN_MHZ, MAX_MHZ = 5, 2_000_000
"""A lower value is in GHz, because the ionosphere reflects such frequencies. A higher one is in Hz, because no radio
telescope observes at such frequencies."""
MAX_CHANS = 2**34
"""Sixteen times the largest spliced file. A larger number means a corrupt header, and would exhaust the memory."""


def utc_of(mjd: float) -> datetime:
    """Return an MJD as a time, UTC."""
    return datetime.fromtimestamp((mjd - UNIX_EPOCH_MJD) * SECONDS_PER_DAY, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of one observation: target, band and time.

    Raises:
        HeaderError: a value is impossible; the message names it, what was expected and what was found.
    """

    telescope_id: int
    machine_id: int
    source_name: str
    src_raj: float  # hours
    src_dej: float  # degrees
    tstart: float  # MJD, UTC, of the first row
    tsamp: float  # seconds per row
    fch1: float  # MHz, center of channel 0
    foff: float  # MHz, step to the next channel; negative when the band descends
    nchans: int
    nifs: int
    ntime: int  # rows
    nbits: int
    nfpc: int | None = None  # fine channels per coarse channel, if the file has it
    ibeam: int = -1  # number of the beam; -1 where the telescope has one, or the file does not say
    nbeams: int = 1
    coordinate_note: str = ""  # how src_raj and src_dej were read, if not as the format says, or why they were not
    storage_note: str = ""  # what the header says of the stored numbers, where it is not so

    def __post_init__(self) -> None:
        wrong = [
            f"{name}: expected {expected}, found {found!r}" for name, ok, expected, found in self._checks() if not ok
        ]
        if wrong:
            raise HeaderError("; ".join(wrong))

    def _checks(self) -> list[tuple[str, bool, str, object]]:
        return [
            ("fch1", MIN_MHZ < self.fch1 < MAX_MHZ, f"a frequency in MHz, {MIN_MHZ} to {MAX_MHZ}", self.fch1),
            ("foff", math.isfinite(self.foff) and self.foff != 0, "a channel width in MHz, not 0", self.foff),
            ("tsamp", math.isfinite(self.tsamp) and self.tsamp > 0, "seconds above 0", self.tsamp),
            ("tstart", 40_000 < self.tstart < 100_000, "an MJD in 40000-100000", self.tstart),
            ("nchans", 0 < self.nchans <= MAX_CHANS, f"1 to {MAX_CHANS} channels", self.nchans),
            ("nifs", 1 <= self.nifs <= 4, "1 to 4 polarizations", self.nifs),
            ("nbits", self.nbits in (1, 2, 4, 8, 16, 32), "1, 2, 4, 8, 16 or 32 bits", self.nbits),
            ("rows", self.ntime >= MIN_ROWS, f"at least {MIN_ROWS} rows", self.ntime),
            ("nfpc", self.nfpc is None or self.nfpc > 0, "a positive count of channels", self.nfpc),
        ]

    @property
    def has_coordinates(self) -> bool:
        """Whether the header gives a place; writers without coordinates store zeros."""
        return math.isfinite(self.src_raj + self.src_dej) and (self.src_raj, self.src_dej) != (0, 0)

    @property
    def duration_s(self) -> float:
        """Length of the observation, in seconds."""
        return self.ntime * self.tsamp

    @property
    def band_mhz(self) -> tuple[float, float]:
        """Lower and upper edge of the band, outer channel edges included."""
        edges = (self.fch1 - self.foff / 2, self.fch1 + (self.nchans - 0.5) * self.foff)
        return min(edges), max(edges)

    @property
    def coarse_chans(self) -> int:
        """Fine channels per coarse channel: `nfpc`, else the width of the BL recorders, else the whole band."""
        if self.nfpc is not None:
            return min(self.nfpc, self.nchans)
        expected = round(COARSE_MHZ / abs(self.foff))
        return expected if 1 < expected <= self.nchans and self.nchans % expected == 0 else self.nchans

    @property
    def identity(self) -> str:
        """20 hex digits that identify the observation, whatever the name and path of its file."""
        values = (
            self.telescope_id,
            round(self.tstart, 6),
            round(self.fch1, 6),
            round(self.foff, 12),
            self.nchans,
            self.ntime,
        )
        beam = (self.ibeam,) if self.ibeam >= 0 else ()
        place = (round(15 * self.src_raj, 3), round(self.src_dej, 3)) if self.has_coordinates else ()
        return hashlib.sha256(repr((*values, self.source_name, *beam, *place)).encode()).hexdigest()[:20]

    def frequency(self, channel: float) -> float:
        """Return the frequency in MHz at the center of `channel`, which may be fractional."""
        return self.fch1 + channel * self.foff

    def channel(self, frequency_mhz: float) -> float:
        """Return the fractional channel of `frequency_mhz`; whole numbers are channel centers."""
        return (frequency_mhz - self.fch1) / self.foff


def gbt_header(nchans: int = 2**18, *, rows: int = 16, fch1: float = 1500.0, source_name: str = "HIP99427") -> Header:
    """Return a header of the high-resolution product of GBT's recorder.

    Args:
        nchans: fine channels.
        rows: of 18.25 s.
        fch1: MHz, center of channel 0.
        source_name: name of the target.
    """
    return Header(
        telescope_id=6,
        machine_id=20,
        source_name=source_name,
        src_raj=20.1829,
        src_dej=77.2361,
        tstart=59103.0229,
        tsamp=18.253611008,
        fch1=fch1,
        foff=-2.7939677238464355e-06,
        nchans=nchans,
        nifs=1,
        ntime=rows,
        nbits=32,
        nfpc=min(2**20, nchans),
    )
