"""What can go wrong in the service, and what a caller may do about it.

SentinelError
├── ConfigError           the configuration holds mistakes: every one is listed; a person corrects it (exit 2)
├── StoreError            the store cannot be used as it is: the message says what to change
│   └── StoreAwayError    it cannot be reached, is locked, full or read-only: the same step may work later
├── BusyError             another copy of this program holds the lock: do not start
├── LeaseLostError        another attempt owns this cadence by now: drop what was found, record nothing
├── FetchError            a release could not be downloaded or is not what its checksum says: nothing was installed
└── PostError             a message did not go out
    ├── PostLaterError    it was not accepted: send it again after `after_s`
    ├── PostUnknownError  the reply was lost: it may have been accepted, look before sending again
    └── PostGoneError     what was to be edited is not there any more, or may not be changed

A failed search is tried again or set aside by the class of its error alone: see `retriable`.
"""

from aetherscan.errors import CadenceError, ReadError, TruncatedFileError


class SentinelError(Exception):
    """Anything this package raises on purpose."""


class ConfigError(SentinelError):
    """The configuration holds mistakes; the message lists every one."""


class StoreError(SentinelError):
    """The store cannot be used as it is."""


class StoreAwayError(StoreError):
    """The store cannot be reached or written just now."""


class BusyError(SentinelError):
    """Another copy of this program holds its lock."""


class LeaseLostError(SentinelError):
    """The fencing token is not the cadence's any more."""


class FetchError(SentinelError):
    """A release could not be fetched."""


class PostError(SentinelError):
    """A message did not go out."""


class PostLaterError(PostError):
    """A message was not accepted; send it again after `after_s` seconds (None: back off)."""

    def __init__(self, cause: str, after_s: float | None = None) -> None:
        super().__init__(cause)
        self.after_s = after_s


class PostUnknownError(PostError):
    """The reply to a message was lost; Slack may have accepted it."""


class PostGoneError(PostError):
    """A posted message cannot be edited: it was deleted, or is too old."""


def retriable(error: BaseException) -> bool:
    """Return whether searching the same files again can help: not when they are what is wrong."""
    return isinstance(error, TruncatedFileError) or not isinstance(error, ReadError | CadenceError)
