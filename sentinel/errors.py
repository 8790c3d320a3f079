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
    ├── PostRefusedError  this message may not go there: hold it until a label changes that
    └── PostGoneError     the posted message was deleted, or can no longer be edited

`cause_of` and `Cause` decide whether a failed search is repeated without limit, counted and repeated, or quarantined.
"""

import errno
from enum import Enum

from aetherscan.errors import CadenceError, ReadError, ReleaseError, TruncatedFileError


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


class PostRefusedError(PostError):
    """A message that may not be sent to this destination, at least not yet."""


class PostGoneError(PostError):
    """A posted message cannot be edited: it was deleted, or is too old."""


class Cause(Enum):
    """What an attempt failed for.

    Attributes:
        MACHINE: this machine or its network. The attempt is not counted, and repeated until the cause has gone.
        DEATH: the worker process died. The attempt is not counted, and repeated; deaths are counted apart, because the
            files may be what ended it.
        FILE: the files. Another attempt cannot succeed: the cadence is quarantined.
        UNKNOWN: anything else. The attempt is counted and repeated.
    """

    MACHINE = "machine"
    DEATH = "death"
    FILE = "file"
    UNKNOWN = "unknown"


MACHINE_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "ENOMEM", "ENOLCK", "ENODEV", "ENXIO"),
        *("ENOENT", "ENOTDIR", "ESTALE", "EIO", "EREMOTEIO", "EBUSY", "EAGAIN", "EINTR", "ETIMEDOUT", "ENOTCONN"),
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)
"""Errors of a disk, a mount, a network, permissions or limits. ENOENT: the files, or their mount, are away."""
MACHINE_TEXTS = (
    *("cannot cache function", "can't start new thread", "no space left", "permission denied", "disk quota"),
    *("read-only file system", "no such file or directory", "input/output error", "stale file handle"),
    *("too many open files", "cannot allocate memory", "unable to allocate"),
)
"""Parts of messages, in lower case, of libraries that raise RuntimeError or hide the number of the error."""
MACHINE_ERRORS = (MemoryError, StoreError, ReleaseError, ConfigError, ConnectionError, TimeoutError)
"""Errors of memory, store, release or configuration, or towards a program that is away."""


def cause_of(error: BaseException) -> Cause:
    """Return whether the machine or the files caused an error, from its class and those of the errors it came from."""
    chain = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) and earlier not in chain:
        chain.append(earlier)
    if any(_from_machine(link) for link in chain):
        return Cause.MACHINE
    if isinstance(error, ReadError | CadenceError) and not isinstance(error, TruncatedFileError):
        return Cause.FILE
    return Cause.UNKNOWN


def _from_machine(error: BaseException) -> bool:
    if isinstance(error, MACHINE_ERRORS):
        return True
    if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
        return True
    hidden = isinstance(error, OSError | RuntimeError | ReadError)
    return hidden and any(text in str(error).lower() for text in MACHINE_TEXTS)
