"""Linear power of any unit and level gives the same candidates; decibels and signed values are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector

from aetherscan.errors import PowerError
from aetherscan.header import gbt_header
from aetherscan.io import ArrayObservation, open_cadence, open_observation, write_h5
from aetherscan.search.bandpass import normalize_bandpass
from aetherscan.search.pipeline import search_cadence
from aetherscan.search.power import check_power, sample_power
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.commands.search import search
from sentinel.config import Search

HEADER = replace(gbt_header(2**15), nfpc=2**13)
TONE = Emitter(frequency_mhz=HEADER.frequency(9000), drift_hz_s=0.02, width_hz=4.0, snr=(30.0, 0) * 3)


def flat(power):
    """Return power divided by its level in every 64 channels."""
    return power / np.repeat(np.median(power.reshape(-1, 2**9, 64), axis=(0, 2)), 64)


POWER = {
    "power": lambda power: power,
    "integer counts": lambda power: np.rint(power / power.mean() * 200),
    "normalized to 0 to 1 in a flat band": lambda power: (flat(power) - flat(power).min()) / np.ptp(flat(power)),
    "divided by the bandpass": flat,
    "janskys": lambda power: power * 3e-7,
    "amplitude": np.sqrt,
}
NO_POWER = {
    "decibels": (lambda power: 10 * np.log10(power), "a logarithm"),
    "decibels above the faintest": (lambda power: 10 * np.log10(power / power.min()) + 3, "a logarithm"),
    "decibels in steps of 0.1": (lambda power: np.rint(100 * np.log10(power)), "a logarithm"),
    "decimal logarithm": (np.log10, "a logarithm"),
    "decibels of a unit near the level": (lambda power: 10 * np.log10(power / power.mean()), "below 0"),
    "decibels below a milliwatt": (lambda power: 10 * np.log10(power / power.mean()) - 90, "100.0% of it below 0"),
    "without its mean": (lambda power: power - power.mean(), "below 0"),
    "in units of its scatter": (lambda power: (power - power.mean()) / power.std(), "below 0"),
    "with its sign changed": (lambda power: -power, "100.0% of it below 0"),
    "a Stokes parameter": (lambda power: power - np.roll(power, 1, axis=0), "below 0"),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_cadence(tmp_path_factory.mktemp("sky"), Sky(header=HEADER, emitters=(TONE,)), 1)


@pytest.fixture(scope="module")
def sky(paths):
    with open_cadence(paths) as observations:
        return [(each.header, each.read(0, HEADER.nchans)) for each in observations]


def found(sky, unit=lambda power: power):
    arrays = [ArrayObservation(header, unit(power).astype(np.float32)) for header, power in sky]
    return search_cadence(arrays, make_detector())


@pytest.mark.parametrize("unit", POWER)
def test_a_signal_in_linear_power_of_any_unit_is_found(sky, unit):
    (candidate,) = found(sky, POWER[unit]).candidates
    assert candidate.frequency_mhz == pytest.approx(TONE.frequency_mhz, abs=1e-5)
    assert min(candidate.snr[::2]) > 20


@pytest.mark.parametrize("level", [1e-30, 1e-25, 1e20, 1e30])
def test_power_of_any_level_gives_the_same_candidates(sky, level):
    exponent = round(np.log2(level / sky[0][1].mean()))
    assert found(sky, lambda power: np.ldexp(power, exponent)).candidates == found(sky).candidates


@pytest.mark.parametrize("unit", NO_POWER)
def test_values_that_are_no_linear_power_are_refused_with_what_was_seen(sky, unit):
    change, message = NO_POWER[unit]
    with pytest.raises(PowerError, match=f"^scan 1, .*: expected linear power.* found .*{message}") as raised:
        found(sky, change)
    assert "\n" not in str(raised.value)


def test_one_observation_in_decibels_costs_its_own_cadence_only(tmp_path, paths, sky):
    (tmp_path / "good").mkdir()
    other = Sky(header=replace(HEADER, source_name="HIP1", src_raj=3.0, tstart=HEADER.tstart + 1), emitters=(TONE,))
    good, lines = write_cadence(tmp_path / "good", other, 2), []
    (header, power), bad = sky[3], tmp_path / paths[3].with_suffix(".h5").name
    write_h5(bad, header, [10 * np.log10(power)])
    files = [*paths[:3], bad, *paths[4:], *good]
    outcome = search(files, tmp_path / "out", detect=make_detector, search=Search(threads=1), tell=lines.append)
    assert (outcome.searched, outcome.exit_status) == (1, 3)
    (reason,) = [line for line in lines if line.startswith("not searched")]
    assert f"scan 4, {header.source_name}: expected linear power" in reason
    assert len((tmp_path / "out" / "candidates.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(("unit", "doubted"), [("power", False), ("integer counts", False), ("amplitude", True)])
def test_a_scatter_that_the_header_does_not_allow_is_a_warning(sky, unit, doubted):
    warnings = found(sky, POWER[unit]).warnings
    assert len(warnings) == 6 * doubted
    assert all("(mean / scatter)^2 of the power: expected 51 to 102 by" in warning for warning in warnings)


@pytest.mark.parametrize("tsamp", [HEADER.tsamp / 100, HEADER.tsamp * 100])
def test_a_wrong_row_length_is_a_warning(sky, tsamp):
    headers = [replace(header, tsamp=tsamp, tstart=header.tstart + i) for i, (header, _) in enumerate(sky)]
    power = np.stack([power[:, : 2**12] for _, power in sky])
    assert len(check_power(headers, [sample_power(power, normalized(power), [power.shape[1]] * len(power))])) == 6


def normalized(power):
    sigmas = np.empty_like(power)
    for observation, out in zip(power, sigmas, strict=True):
        normalize_bandpass(observation, 0, out)
    return sigmas


def test_the_noise_of_a_receiver_obeys_the_law_and_its_decibels_do_not():
    with open_observation(Path(__file__).parents[1] / "data" / "gbt_cband_noise.fil") as observation:
        header, power = observation.header, observation.read(0, observation.header.nchans)[None]
    assert check_power([header], [sample_power(power, normalized(power), [power.shape[1]] * len(power))]) == []
    decibels = 10 * np.log10(power)
    with pytest.raises(PowerError, match="a logarithm"):
        check_power([header], [sample_power(decibels, normalized(decibels), [decibels.shape[1]] * len(decibels))])


@pytest.mark.parametrize(("averaged", "refused"), [(200, True), (320, False)])
def test_a_logarithm_of_many_averaged_samples_is_a_warning(averaged, refused):
    header = replace(HEADER, tsamp=averaged / abs(HEADER.foff * 1e6))
    power = np.random.default_rng(averaged).gamma(averaged, size=(12, 1, 16, 2**12))
    samples = [sample_power(part, normalized(part), [16]) for part in (10 * np.log10(power)).astype(np.float32)]
    if refused:
        with pytest.raises(PowerError, match="a logarithm, as decibels are"):
            check_power([header], samples)
    else:
        assert "may be a logarithm" in check_power([header], samples)[0]


def test_a_few_negative_pixels_are_not_taken_for_another_unit(sky):
    broken = [(header, power.copy()) for header, power in sky]
    broken[1][1][3, 500:510] *= -1
    assert len(found(broken).candidates) == 1
