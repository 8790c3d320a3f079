"""Simulated scenarios: independent noise and emitters, tones of exact SNR, room around every tone."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aetherscan.evaluate.scenarios import SCENARIOS, Scenario, cadence_headers, cadence_seeds, draw_sky, write_sky
from aetherscan.header import MAD_TO_SIGMA, SCAN_STEP_S, gbt_header
from aetherscan.io import open_observation
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.noise import BURST_NOISE, NOISE
from aetherscan.simulate.sky import LEVEL, Sky
from aetherscan.train.streams import Stream

SEED = np.random.SeedSequence(1)
SLICE = Path(__file__).parents[1] / "data" / "ddo210_coarse469_slice.npz"
CROWD = Scenario(name="crowd", description="", quick_mhz=0.18, full_mhz=0.36, zoo_per_mhz=60, tones_per_mhz=40)
SCENARIO_NAMES = [scenario.name for scenario in SCENARIOS]


@pytest.mark.parametrize("real", [False, True])
def test_a_tone_keeps_its_snr_where_a_burst_raises_the_noise(tmp_path, real):
    power = np.load(SLICE)["data"] if real else None
    header = gbt_header(2**14)
    tone = Emitter(frequency_mhz=header.frequency(9000), drift_hz_s=0.8, width_hz=5.0, snr=(20.0, 0.0) * 3)
    sky = Sky(header=header, emitters=(tone,), bursts=() if real else ((0, 3, 5.0), (0, 4, 5.0)), spike=0)
    powers = []
    for emitters in ((tone,), ()):
        path = write_sky(tmp_path, replace(CROWD, real=real), replace(sky, emitters=emitters), SEED, power)[0]
        with open_observation(path) as observation:
            powers.append(observation.read(0, header.nchans).astype(float))
    sigma = np.full(16, NOISE * LEVEL)
    sigma[3:5] *= 5 * BURST_NOISE
    if power is not None:
        sigma = MAD_TO_SIGMA * np.median(np.abs(power - np.median(power, axis=1)[:, None]), axis=1)
    signal = (powers[0] - powers[1]) / sigma[:, None]
    assert np.sqrt((signal**2).sum()) == pytest.approx(20.0, rel=0.02)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=SCENARIO_NAMES)
def test_the_tones_of_a_scenario_are_inside_the_band_and_apart(scenario):
    header = gbt_header(2**14 if scenario.real else 2**21)
    emitters = draw_sky(scenario, header, cadence_seeds(scenario, 5, 0)[0]).emitters
    tones = [emitter for emitter in emitters if emitter.kind == "tone"]
    assert bool(tones) == bool(scenario.tones_per_mhz or scenario.place)
    ends = np.sort([tone.track_mhz(np.array([0.0, 5 * SCAN_STEP_S + 292.0])) for tone in tones], axis=0)
    assert ends.size == 0 or header.band_mhz[0] < ends.min() <= ends.max() < header.band_mhz[1]
    assert (np.diff(ends, axis=0) > 500e-6).all()
    assert {tuple(snr > 0 for snr in tone.snr) for tone in tones} <= {(True, False) * 3} or scenario.partial_ons


def test_no_two_cadences_of_any_scenario_and_seed_share_noise_or_emitters(tmp_path):
    quiet, crowded, keys = gbt_header(64), gbt_header(2**21), itertools.product(SCENARIOS, (4, 5), (0, 1))
    values, noise = [], []
    for i, (scenario, seed, number) in enumerate(keys):
        emitter_seed, noise_seed = cadence_seeds(scenario, seed, number)
        sky = draw_sky(scenario, crowded, emitter_seed)
        values += [*sky.gains, *(factor for *_, factor in sky.bursts[:1])]
        values += [emitter.width_hz for emitter in sky.emitters]
        if not scenario.real:
            (folder := tmp_path / str(i)).mkdir()
            for path in write_sky(folder, scenario, Sky(header=quiet), noise_seed):
                with open_observation(path) as observation:
                    noise.append(observation.read(0, quiet.nchans)[:, 0].tobytes())
    assert len(noise) == len(set(noise)) == sum(not scenario.real for scenario in SCENARIOS) * 2 * 2 * 6
    assert len(values) == len(set(values)) > 1000


def test_an_evaluation_shares_no_random_stream_with_a_training_of_the_same_seed():
    indices = [keys for length in range(4) for keys in itertools.product(range(3), repeat=length)]
    training = [np.random.SeedSequence(5, spawn_key=(stream, *keys)) for stream in Stream for keys in indices]
    ours = []
    for scenario, number in itertools.product(SCENARIOS, range(5)):
        for seed in cadence_seeds(scenario, 5, number):
            keys = ((*seed.spawn_key, position, 0) for position in range(6))
            ours += [seed, *(np.random.SeedSequence(5, spawn_key=key) for key in keys)]
    states = [{seed.generate_state(4).tobytes() for seed in seeds} for seeds in (training, ours)]
    assert states[0].isdisjoint(states[1])
    assert len(states[1]) == len(ours)


@pytest.mark.parametrize(("tones_per_mhz", "cadences"), [(0, 1), (66, 3)])
def test_a_real_slice_without_tones_is_searched_once_whatever_the_band(tones_per_mhz, cadences):
    scenario = replace(CROWD, real=True, tones_per_mhz=tones_per_mhz)
    assert len(list(cadence_headers(scenario, 3 * 2**14 * 2.794e-6, 2**14))) == cadences
