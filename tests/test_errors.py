"""Whether an attempt is counted and repeated is decided by what caused its error."""

import errno
import os
import sqlite3

import pytest

from aetherscan.errors import CadenceError, FormatError, HeaderError, ReadError, ReleaseError, TruncatedFileError
from sentinel.errors import Cause, ConfigError, StoreAwayError, StoreError, cause_of

DISK = (
    "ENOSPC",
    "EDQUOT",
    "EROFS",
    "EACCES",
    "EPERM",
    "EIO",
    "ESTALE",
    "ENOENT",
    "ENODEV",
    "EMFILE",
    "ENFILE",
    "ENOMEM",
)
NETWORK = ("ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ENOTCONN", "EPIPE")


def raised(error, cause):
    """Return an error as it is when another one led to it."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def during(error, cause):
    """Return an error that was raised while another one was handled."""
    try:
        try:
            raise cause
        except type(cause):
            raise error  # noqa: B904
    except type(error) as caught:
        return caught


@pytest.mark.parametrize("name", DISK + NETWORK)
def test_errors_of_disk_mount_and_network_are_attributed_to_the_machine(name):
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number), "/data/a.h5")
    assert cause_of(error) is Cause.MACHINE
    assert cause_of(raised(TruncatedFileError("a.h5: cut short"), error)) is Cause.MACHINE
    assert cause_of(during(FormatError("a.h5: not a filterbank"), error)) is Cause.MACHINE


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        StoreAwayError("away"),
        StoreError("damaged"),
        ReleaseError("encoder.onnx: altered"),
        ConfigError("release: missing"),
        RuntimeError("cannot cache function 'f': no locator available for file 'a.py'"),
        RuntimeError("can't start new thread"),
        OSError(
            "Unable to open file (unable to open file: name = 'a.h5', errno = 13, error message = 'Permission denied')"
        ),
        ReadError("a.h5: [Errno 28] No space left on device"),
        raised(RuntimeError("a kernel failed"), MemoryError()),
    ],
)
def test_errors_of_memory_store_release_and_caches_are_attributed_to_the_machine(error):
    assert cause_of(error) is Cause.MACHINE


@pytest.mark.parametrize("kind", [ReadError, FormatError, HeaderError, CadenceError])
def test_an_unreadable_file_is_attributed_to_the_file(kind):
    assert cause_of(kind("foff is 0")) is Cause.FILE
    assert cause_of(raised(kind("foff is 0"), ValueError("0"))) is Cause.FILE


@pytest.mark.parametrize(
    "error",
    [
        TruncatedFileError("cut short"),
        ValueError("cannot reshape array"),
        ZeroDivisionError(),
        RuntimeError("failpoint"),
        OSError("Can't read data (inflate() failed)"),
        OSError(errno.EINVAL, "Invalid argument"),
        sqlite3.ProgrammingError("no such column"),
        KeyboardInterrupt(),
    ],
)
def test_anything_else_is_unknown_and_counted(error):
    assert cause_of(error) is Cause.UNKNOWN


def test_errors_that_refer_to_each_other_end_the_search_for_a_cause():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert cause_of(first) is Cause.UNKNOWN
