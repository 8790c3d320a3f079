"""Small observations for tests, with headers of real recorders and chi-squared noise."""

import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from aetherscan.header import SCAN_STEP_S, Header
from aetherscan.io import write_fil, write_h5

GBT = Header(
    telescope_id=6,
    machine_id=20,
    source_name="HIP99427",
    src_raj=20.18,
    src_dej=-12.75,
    tstart=59103.023,
    tsamp=18.253611008,
    fch1=8421.38671875,
    foff=-2.7939677238464355e-06,
    nchans=1024,
    nifs=1,
    ntime=16,
    nbits=32,
    nfpc=256,
)
"""1024 channels of an X-band scan of one node, with coarse channels of 256 channels."""


def make_header(**changes) -> Header:
    return replace(GBT, **changes)


def make_power(header: Header, seed: int = 1) -> np.ndarray:
    """Draw chi-squared noise (204 degrees of freedom), rounded so that 8, 16 and 32 bits store it exactly."""
    noise = np.random.default_rng(seed).chisquare(204, (header.ntime, header.nchans)) / 2
    return np.rint(noise).astype(np.float32)


def write_observation(path: Path, header: Header = GBT, power: np.ndarray | None = None, **options) -> np.ndarray:
    """Write one block in the format of the suffix, and return its power."""
    power = make_power(header) if power is None else power
    (write_fil if path.suffix == ".fil" else write_h5)(path, header, [power], **options)
    return power


def replace_data(path: Path, changes: dict | None = None, **storage) -> None:
    """Store the dataset `data` of an .h5 file anew, with its attributes and `changes` to them.

    `storage` are the arguments of h5py's `create_dataset`.
    """
    with h5py.File(path, "r+") as file:
        attributes = {name: value for name, value in file["data"].attrs.items() if name != "DIMENSION_LABELS"}
        del file["data"]
        file.create_dataset("data", **storage).attrs.update(attributes | (changes or {}))


def set_attribute(path: Path, name: str, value: object) -> None:
    """Change an attribute of the header of an .h5 file; None removes it."""
    with h5py.File(path, "r+") as file:
        del file["data"].attrs[name]
        if value is not None:
            file["data"].attrs[name] = value


def set_keyword(path: Path, name: str, code: str, value: float) -> None:
    """Change a number in the header of a .fil file; `code` is its type, as `struct` has it."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(code, raw, raw.index(name.encode()) + len(name), value)
    path.write_bytes(raw)


def write_products(path: Path, header: Header, cube: np.ndarray) -> None:
    """Write a file with the polarization products of a cube (time, product, frequency)."""
    write_observation(path, header)
    if path.suffix == ".h5":
        replace_data(path, {"nifs": cube.shape[1]}, data=cube)
    else:
        head = path.read_bytes()[: -header.ntime * header.nchans * 4]
        path.write_bytes(head.replace(b"nifs\1", b"nifs" + bytes([cube.shape[1]])) + cube.tobytes())


def observe(pattern: str, *tones, header: Header = GBT, rows=None, start_s=None, seed: int = 1) -> list:
    """Return an observation of chi-squared noise and tones for each letter of a pattern, A for an ON.

    `rows` and `start_s` give the length and the start of each; by default they are equal and 341 s apart.
    """
    from aetherscan.io import ArrayObservation
    from aetherscan.simulate.injection import add_emitter
    from aetherscan.simulate.noise import NOISE, noise

    observations, rng = [], np.random.default_rng(seed)
    for i, letter in enumerate(pattern):
        count, at_s = rows[i] if rows else header.ntime, start_s[i] if start_s else i * SCAN_STEP_S
        power = noise(rng, count, header.nchans)
        for tone in tones:
            add_emitter(
                power, tone, position=i, start_s=at_s, tsamp=header.tsamp, fch1=header.fch1, foff=header.foff,
                noise=np.full(count, NOISE),
            )  # fmt: skip
        name = header.source_name if letter == "A" else f"HIP{ord(letter)}"
        place = {"src_dej": header.src_dej + (letter != "A") * (2 + ord(letter) - ord("A"))}
        scan = replace(header, source_name=name, tstart=header.tstart + at_s / 86_400, ntime=count, **place)
        observations.append(ArrayObservation(scan, power))
    return observations


def make_candidate(scans: int = 6, **changes):
    """Return a candidate of a cadence of `scans` observations, 20 sigma in each, with `changes`."""
    from aetherscan.search.candidates import Candidate

    values = {
        "frequency_mhz": GBT.frequency(500), "drift_rate_hz_s": 0.3, "curvature_hz_s2": 0.0, "bandwidth_hz": 4.0,
        "snr": (20.0,) * scans, "valid": (1.0,) * scans, "note": "", "probability": 0.97, "probability_spread": 0.01,
        "strangeness": 1.0, "scored_by": "forest", "proposer_score": 20.0, "latents": (), "binning": 1,
        "allocations": (), "clock": "", "comb_spacing_hz": None, "comb_teeth": 0, "neighbours": 0, "nearest_hz": None,
        "target": GBT.source_name, "tstart_mjd": GBT.tstart, "on_separation_arcmin": 0.0, "release": "test",
        "mode": "tracks", "ra_deg": 15 * GBT.src_raj, "dec_deg": GBT.src_dej, "telescope": "GBT",
        "barycentric_mhz": GBT.frequency(500) - 0.2, "barycentric_drift_hz_s": 0.4, "drift_nhz": 0.04,
        "joint_snr": 34.6, "valid_share": 1.0, "kind": None, "kind_probability": None, "rfi_density": 2.5,
    }  # fmt: skip
    return Candidate(**{**values, **changes})


class SeesSignalsEverywhere:
    """A forest that gives every candidate probability 1."""

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(features), 1))

    @property
    def estimators_(self):
        """Return its trees: itself."""
        return [self]


def make_detector(folder: Path = Path("models/test")):
    """Make a detector that passes every candidate without running a network."""
    from aetherscan.detector.detector import Detector
    from aetherscan.detector.release import Mode, Release

    modes = {mode: Mode(threshold=0.5, measurements=(), calibration=None) for mode in ("tracks", "windows")}
    release = Release(path=folder, name=folder.name, sha256="0" * 64, snippet=(16, 512), modes=modes, card={})
    nothing = np.zeros((6, 8), np.float32)
    return Detector(
        release=release, encode=lambda _: (nothing, nothing), forests=dict.fromkeys(modes, SeesSignalsEverywhere())
    )
