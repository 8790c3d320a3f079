"""TODO."""

from dataclasses import dataclass

MODES = ("tracks", "windows")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search. A threshold of None is the release's own; SNR is in sigma, of a line along its drift."""

    mode: str = "tracks"
    threshold: float | None = None
    max_drift_hz_s: float = 4.0
    hit_snr: float = 5.0
    min_on_snr: float = 4.0
    min_together_snr: float = 9.0
    max_off_snr: float = 5.0
    block_channels: int = 2**20
    threads: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a probability in 0-1, found {self.threshold}")
        if not 0 < self.max_drift_hz_s <= 10:
            raise ValueError(f"max_drift_hz_s: expected Hz/s above 0, at most 10, found {self.max_drift_hz_s}")
        if self.hit_snr < 4:
            raise ValueError(f"hit_snr: expected at least 4, below which noise alone is a hit, found {self.hit_snr}")
        if self.block_channels < 2**15:
            raise ValueError(f"block_channels: expected at least {2**15}, found {self.block_channels}")
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, found {self.threads}")
