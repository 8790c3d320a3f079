"""Search radio-telescope cadences for narrowband signals that are present only when the telescope is on target.

This package holds the science: arrays, files and models, without the service around them. It works in a notebook::

    from aetherscan.io import open_observation

    with open_observation("guppi_59103_01984_HIP99427_0011.rawspec.0000.h5") as observation:
        print(observation.header)
        power = observation.read(0, 4096)  # (time, freq), float32
"""

import os

# From 1.29 on, ONNX Runtime sends telemetry for every model it loads, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
