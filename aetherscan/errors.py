"""What can go wrong in the science, and what a caller may do about it.

AetherscanError
├── ReadError                 this file cannot be searched as it is: set it aside with the cause
│   ├── TruncatedFileError    not all of it is there yet: look again later
│   ├── FormatError           not a filterbank file this package reads
│   └── HeaderError           a header value is missing or impossible
├── CadenceError              these observations do not make a cadence
├── FeedError                 a process that makes examples ended or failed: begin the epoch again
├── TrainingError             a training cannot go on as it is: the message says what to change
├── RecipeError               options of a training that are out of range or at odds: nothing was begun
└── ReleaseError              encoder and forest are missing, altered or of another shape: keep the old ones
"""


class AetherscanError(Exception):
    """Anything this package raises on purpose."""


class ReadError(AetherscanError):
    """A file cannot be searched as it is."""


class TruncatedFileError(ReadError):
    """A file is not all there, or changed while it was read; it may be complete later."""


class FormatError(ReadError):
    """A file is not a filterbank that this package reads."""


class HeaderError(ReadError):
    """A header value is missing or impossible."""


class CadenceError(AetherscanError):
    """Observations do not make an ON/OFF cadence."""


class FeedError(AetherscanError):
    """A process that makes examples ended or failed."""


class RecipeError(AetherscanError, ValueError):
    """Options of a training are out of range, at odds, or beyond what the code can do; one a line."""


class TrainingError(AetherscanError):
    """A training cannot go on as it is, and trying again would end the same way."""


class ReleaseError(AetherscanError):
    """A release (encoder, forest, card) is missing, altered or of the wrong shape."""
