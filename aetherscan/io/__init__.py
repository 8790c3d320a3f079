"""Read and write observations: BL HDF5 (`.h5`) and SIGPROC (`.fil`) files to arrays of power, and back.

`observation` opens a file of either format, or the files of a cadence; `memory` makes observations of arrays; `hdf5`
and `sigproc` know one format each; `bitshuffle` decodes the chunks of an HDF5 dataset without the HDF5 library;
`fields` checks header values; `products` decides which polarization products are total power. Only this package
imports h5py and hdf5plugin.
"""

from aetherscan.io.hdf5 import write_h5
from aetherscan.io.memory import ArrayObservation, absent_observation, from_frame, from_waterfall, in_turn
from aetherscan.io.observation import (
    SUFFIXES,
    FileObservation,
    Observation,
    open_cadence,
    open_observation,
    verify_complete,
)
from aetherscan.io.sigproc import write_fil

__all__ = [
    "SUFFIXES",
    "ArrayObservation",
    "FileObservation",
    "Observation",
    "absent_observation",
    "from_frame",
    "from_waterfall",
    "in_turn",
    "open_cadence",
    "open_observation",
    "verify_complete",
    "write_fil",
    "write_h5",
]
