"""The errors of aetherscan, and what a caller can do about each.

AetherscanError
├── ReadError                 a file cannot be searched: set it aside with the reason
│   ├── TruncatedFileError    the file is incomplete or changing: try again later
│   ├── FormatError           the file is not a filterbank that this package reads
│   ├── HeaderError           a header value is missing or impossible
│   └── PowerError            the numbers are not linear power: decibels, signed or zero-mean
├── CadenceError              the observations do not make a cadence
├── TrainingError             a training cannot continue: the message says what to change
├── OptionsError              options are out of range or contradict each other: nothing was started
└── ReleaseError              a release is incomplete, altered or of the wrong shape: keep using the previous one
"""


class AetherscanError(Exception):
    """Base of every error that this package raises on purpose."""


class ReadError(AetherscanError):
    """A file cannot be searched."""


class TruncatedFileError(ReadError):
    """A file is incomplete, or changed while it was read; it may be complete later."""


class FormatError(ReadError):
    """A file is not a filterbank that this package reads."""


class HeaderError(ReadError):
    """A header value is missing or impossible."""


class PowerError(ReadError):
    """The numbers of a file are not linear power."""


class CadenceError(AetherscanError):
    """Observations do not make an ON/OFF cadence."""


class OptionsError(AetherscanError, ValueError):
    """Options are out of range, contradict each other, or are not supported; one problem per line."""


class TrainingError(AetherscanError):
    """A training cannot continue, and would fail again without a change."""


class ReleaseError(AetherscanError):
    """A release (encoder, forest, card) is incomplete, altered or of the wrong shape."""
