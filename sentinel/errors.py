"""Errors of the service, and what a caller can do about each.

SentinelError
├── ConfigError           the configuration is wrong: the message lists every mistake (exit 2)
├── StoreError            the store cannot be used: the message says what to change
│   └── StoreAwayError    it is out of reach, locked, full or read-only: retry the step later
├── BusyError             another copy of this program holds the lock: exit
├── LeaseLostError        another attempt holds the cadence: discard the result
├── FetchError            a release could not be downloaded, or its checksum differs: nothing was installed
└── PostError             a message was not sent
    ├── PostLaterError    it was rejected: send it again after `after_s`
    ├── PostUnknownError  the reply was lost: search for the message before sending again
    └── PostGoneError     the posted message was deleted, or can no longer be edited

The class of the error alone decides whether a failed search is retried or quarantined: see `retriable`.
"""

from aetherscan.errors import CadenceError, ReadError, TruncatedFileError


class SentinelError(Exception):
    """Base class of the errors of this package."""


class ConfigError(SentinelError):
    """The configuration is wrong; the message lists every mistake."""


class StoreError(SentinelError):
    """The store cannot be used until a person changes something."""


class StoreAwayError(StoreError):
    """The store cannot be reached or written at the moment."""


class BusyError(SentinelError):
    """Another copy of this program holds its lock."""


class LeaseLostError(SentinelError):
    """The fencing token is void: the lease has ended, or another attempt holds the cadence."""


class FetchError(SentinelError):
    """A release could not be fetched."""


class PostError(SentinelError):
    """A message was not sent."""


class PostLaterError(PostError):
    """A message was rejected; send it again after `after_s` seconds (None: the usual wait)."""

    def __init__(self, cause: str, after_s: float | None = None) -> None:
        super().__init__(cause)
        self.after_s = after_s


class PostUnknownError(PostError):
    """The reply to a message was lost; it may have been accepted."""


class PostGoneError(PostError):
    """A posted message cannot be edited: it was deleted, or is too old."""


def retriable(error: BaseException) -> bool:
    """Return whether another search of the same files can succeed: not if the files are wrong."""
    return isinstance(error, TruncatedFileError) or not isinstance(error, ReadError | CadenceError)
