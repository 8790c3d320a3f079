"""Load TensorFlow without what it says about GPUs that the machine does not have.

TensorFlow logs before its log level applies: five lines about the CPU and, without an NVIDIA driver, an error of CUDA.
These are dropped while it is loaded; every other line of standard error is passed on. With TF_CPP_MIN_LOG_LEVEL set to
0 or 1, nothing is dropped.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
DRIVER = Path("/proc/driver/nvidia/version")
LOGGED = rb"\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \S+\.cc:\d+\] "
NOTICE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]" + LOGGED + rb"|To enable the following"
)
NO_CUDA = re.compile(rb"E" + LOGGED + rb".*(cuInit|CUDA error|cuda drivers)")


def is_noise(line: bytes, *, driver: bool) -> bool:
    """Return whether a line says nothing to a user: a notice, or an error of CUDA on a machine without a driver."""
    return bool(NOTICE.match(line) or (not driver and NO_CUDA.match(line)))


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Drop the notices of TensorFlow from standard error while it is loaded in the body."""
    if os.environ.setdefault(LEVEL, "2") in {"0", "1"}:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not is_noise(line, driver=DRIVER.exists())))
