"""Options of a search, each declared once: `sentinel.config` makes the `search:` section from them."""

from dataclasses import dataclass, fields

from aetherscan.errors import OptionsError
from aetherscan.options.declare import MOST_THREADS, option, out_of_range

MODES = ("tracks", "windows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a line must show to become a track, and a track to become a candidate. SNR is along the line's drift."""

    max_drift_hz_s: float
    hit_snr: float
    min_on_snr: float
    min_together_snr: float
    min_joint_snr: float
    max_off_snr: float
    min_valid: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search a cadence.

    Raises:
        OptionsError: every value that is out of range, one per line.
    """

    mode: str = option("tracks", "tracks: score each line; windows: score every window of 4,096 channels")
    threshold: float | None = option(None, "least probability of a candidate (default: the release's)", least=0, most=1)
    alarms_per_100_mhz: float | None = option(
        None, "alarms in 100 MHz with 15 interferers per MHz; sets the threshold (default: the release's)",
        least=0.05, most=10,
    )  # fmt: skip
    max_drift_hz_s: float = option(4.0, "largest drift rate searched, Hz/s in either direction", above=0, most=10)
    hit_snr: float = option(5.0, "SNR in the middle ON from which a line is followed; noise alone reaches 4", least=4)
    min_on_snr: float = option(4.0, "lowest SNR in each ON")
    min_together_snr: float = option(9.0, "lowest SNR of the ONs together")
    min_joint_snr: float = option(
        7.0, "lowest SNR of the ONs together for a line that is fainter in one ON; 20 finds none of those", least=6
    )
    max_off_snr: float = option(5.0, "highest SNR in an OFF, and in the OFFs together")
    announce_unscored: bool = option(default=True, text="announce candidates of cadences that no forest scores")
    min_valid: float = option(0.5, "least measured share of a track's pixels in an ON or OFF", least=0, most=1)
    dc_spikes: bool = option(default=True, text="blank the middle of a coarse channel if a DC spike stands there")
    polarization: int | None = option(
        None, "polarization product to search, from 1 (default: the sum of the first two)", least=1, most=4
    )
    coarse_channels: int | None = option(None, "fine channels of a coarse channel (default: the header's)", least=1)
    block_channels: int = option(2**20, "channels read at once", least=2**15, most=2**24)  # 6 GiB of 16 rows
    threads: int = option(1, "threads of one search", least=1, most=MOST_THREADS)

    def __post_init__(self) -> None:
        """Report every invalid value at once."""
        errors = out_of_range(self)
        if self.mode not in MODES:
            errors.append(f"mode: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if errors:
            raise OptionsError("\n".join(errors))

    @property
    def gates(self) -> Gates:
        """What a track must show."""
        return Gates(**{gate.name: getattr(self, gate.name) for gate in fields(Gates)})
