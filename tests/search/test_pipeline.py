"""A signal in the ONs alone is one candidate with the right numbers; a signal in an OFF is none."""

import csv
import os
import subprocess
import sys
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector, make_header, make_power

from aetherscan.cadence.geometry import check_cadence, geometry_of
from aetherscan.detector.release import MEASUREMENTS, Kinds
from aetherscan.errors import CadenceError
from aetherscan.evaluate.searchers import release_search
from aetherscan.header import MAD_TO_SIGMA, SCAN_STEP_S, SECONDS_PER_DAY, gbt_header
from aetherscan.io import open_cadence, write_fil, write_h5
from aetherscan.options.search import MODES, SearchSettings
from aetherscan.plotting.waterfall import waterfall_png
from aetherscan.search.blocks import block_limits, read_blocks, read_width
from aetherscan.search.candidates import Candidate, columns, write_csv, write_json
from aetherscan.search.cutouts import UINT8_MAX
from aetherscan.search.explain import trace
from aetherscan.search.follow import SNR, START, WIDTH, track_columns
from aetherscan.search.on_off import merge
from aetherscan.search.pipeline import _windows_with, search_cadence
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.interference import random_interference
from aetherscan.simulate.sky import Sky, write_cadence
from aetherscan.train.examples import draw_examples
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power, patch_header

HEADER = gbt_header(2**15)


def tone(channel: float = 9000.0, drift: float = 1.2, width: float = 6.0, snr: float = 25.0) -> Emitter:
    return Emitter(
        frequency_mhz=HEADER.frequency(channel), drift_hz_s=drift, width_hz=width, snr=(snr, 0, snr, 0, snr, 0)
    )


def search(folder, *emitters, settings=None, seed=1, suffix=".h5", on=(0, 2, 4), **sky):
    paths = write_cadence(folder, Sky(header=HEADER, emitters=emitters, **sky), seed, suffix=suffix)
    with open_cadence(paths) as observations:
        return search_cadence(observations, make_detector(), settings, on=on)


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize(("drift", "width"), [(0.0, 2.0), (1.2, 6.0), (-3.9, 3.0), (0.4, 40.0)])
def test_a_tone_in_the_ons_is_one_candidate_with_the_right_frequency_drift_and_snr(tmp_path, drift, width, suffix):
    (found,) = search(tmp_path, tone(16000, drift, width), suffix=suffix).candidates
    assert abs(found.frequency_mhz - HEADER.frequency(16000)) < 12e-6
    assert found.drift_rate_hz_s == pytest.approx(drift, abs=0.02)
    assert min(found.snr[::2]) > 19
    assert max(found.snr[1::2]) < 5
    assert (found.target, found.tstart_mjd, found.mode) == ("HIP99427", HEADER.tstart, "tracks")
    assert found.joint_snr == pytest.approx(sum(found.snr[::2]) / 3**0.5)
    assert found.drift_nhz == pytest.approx(found.drift_rate_hz_s / 1.5, rel=1e-3)
    assert (found.telescope, found.valid_share) == ("GBT", pytest.approx(1, abs=0.01))
    assert (found.ra_deg, found.dec_deg) == (pytest.approx(15 * HEADER.src_raj), HEADER.src_dej)
    assert found.frequency_mhz / found.barycentric_mhz == pytest.approx(1.0000233, abs=1e-6)


def brightness(snippet):
    """Return latents of the brightest bin of the first observation, averaged over its rows."""
    latents = np.full((6, 8), snippet[0].mean(axis=0).max(), np.float32)
    return latents, np.zeros_like(latents)


class PassesBright:
    def predict_proba(self, features):
        passes = (features[:, 0] > 0.65).astype(float)
        return np.column_stack([1 - passes, passes])

    @property
    def estimators_(self):
        return [self]


class WideIsInterference:
    """A forest of kinds that decides by the width."""

    def predict_proba(self, features):
        wide = (features[:, MEASUREMENTS.index("width_hz")] > 20).astype(float)
        return np.column_stack([1 - wide, wide])


@pytest.mark.parametrize("mode", MODES)
def test_a_candidate_has_a_kind_and_lines_that_an_off_shows_are_counted_by_kind(tmp_path, mode):
    release = replace(make_detector().release, kinds=Kinds(names=("signal", "wide"), power=1.0))
    detector = replace(make_detector(), release=release, kind_forest=WideIsInterference())
    shown = [replace(tone(place, 0.1, width), snr=(40.0,) * 6) for place, width in ((20_000, 3), (25_000, 90))]
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone(5000), tone(9000, width=90), *shown)), 1)
    with open_cadence(paths) as observations:
        result = search_cadence(observations, detector, SearchSettings(mode=mode))
    kinds = {round(HEADER.channel(row.frequency_mhz), -2): row.kind for row in result.candidates}
    assert kinds == {5000: "signal", 9000: "wide"}
    assert all(row.kind_probability == pytest.approx(1.0, abs=0.01) for row in result.candidates)
    seen = {name: result.counts[f"in_an_off_{name}"] for name in ("signal", "wide")}
    assert sum(seen.values()) == result.counts["tracks_in_an_off"]
    assert min(seen.values()) > 0
    (tmp_path / "old").mkdir()
    assert {row.kind for row in search(tmp_path / "old", tone()).candidates} == {None}
    with open_cadence(paths) as observations:
        story = "\n".join(trace(observations, detector, SearchSettings(), HEADER.frequency(25_000)))
    assert "looks like wide, probability 1.00" in story


def test_windows_mode_reports_the_tracks_in_windows_that_pass_and_no_others(tmp_path):
    bright, faint = tone(9000, 0.1, 4, 200.0), tone(24_000, 0.1, 4, 15.0)
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(bright, faint)), 1)
    detector = replace(make_detector(), encode=brightness, forests=dict.fromkeys(MODES, PassesBright()))
    with open_cadence(paths) as observations:
        result = search_cadence(observations, detector, SearchSettings(mode="windows"))
    (candidate,) = result.candidates
    assert abs(candidate.frequency_mhz - bright.frequency_mhz) < 12e-6
    assert (result.counts["below_threshold"], candidate.binning, candidate.probability) == (1, 8, 1.0)


def test_a_track_has_every_window_that_holds_it_and_no_others_are_encoded():
    step = SCAN_STEP_S / SECONDS_PER_DAY
    cadence = geometry_of([replace(HEADER, tstart=HEADER.tstart + i * step) for i in range(6)])
    middles = np.array([0.0, 10, 2048, 2049, 9000, 9001, HEADER.nchans - 5000, HEADER.nchans - 1])
    tracks = np.zeros((len(middles), SNR + 12))
    tracks[:, START] = middles
    starts, windows = _windows_with(tracks, cadence, 4096)
    every = [*range(0, HEADER.nchans - 4096, 2048), HEADER.nchans - 4096]
    held = [[start for start in every if start <= middle < start + 4096] for middle in middles]
    assert [list(starts[a:b]) for a, b in windows] == held
    assert sorted(starts) == sorted({start for one in held for start in one})


def test_no_window_is_encoded_where_no_track_passes(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=()), 1)
    with open_cadence(paths) as observations:
        result = search_cadence(observations, make_detector(), SearchSettings(mode="windows"))
    assert (result.candidates, result.counts.get("windows", 0)) == ((), 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_faint_tone_is_measured_alike_in_both_modes(tmp_path, mode):
    (found,) = search(tmp_path, tone(16000, -2.0, 4.0, 11.0), settings=SearchSettings(mode=mode)).candidates
    assert abs(found.frequency_mhz - HEADER.frequency(16000)) < 20e-6
    assert found.drift_rate_hz_s == pytest.approx(-2.0, abs=0.03)
    assert found.mode == mode


@pytest.mark.parametrize("foff", [1, -1])
@pytest.mark.parametrize("rows", [5, 15, 33])
def test_any_number_of_rows_and_either_direction_of_the_band_is_searched(tmp_path, foff, rows):
    header = replace(gbt_header(2**15, rows=rows), foff=foff * abs(HEADER.foff), nfpc=None)
    one = replace(tone(), frequency_mhz=header.frequency(9000))
    paths = write_cadence(tmp_path, Sky(header=header, emitters=(one,)), 1)
    with open_cadence(paths) as observations:
        (found,) = search_cadence(observations, make_detector()).candidates
    assert abs(found.frequency_mhz - one.frequency_mhz) < 12e-6
    assert found.drift_rate_hz_s == pytest.approx(1.2, abs=0.03)


@pytest.mark.parametrize("kind", ["persistent", "drifting", "off_only", "intermittent", "pulsed", "wide"])
def test_interference_is_no_candidate(tmp_path, kind):
    rng = np.random.default_rng(3)
    emitters = [random_interference(rng, HEADER.frequency(4000 + 5000 * i), 60.0, kind) for i in range(4)]
    result = search(tmp_path, *emitters)
    assert result.candidates == ()
    assert kind == "off_only" or result.counts["hits"] > 0


def test_a_side_lobe_too_faint_in_each_off_is_rejected_by_the_three_offs_together(tmp_path):
    leaking = replace(tone(), snr=(30.0, 4.2, 30.0, 4.2, 30.0, 4.2))
    assert search(tmp_path, leaking).counts["tracks_in_an_off"] > 0
    assert search(tmp_path, leaking).candidates == ()


def test_a_cadence_with_on_and_off_swapped_is_no_candidate(tmp_path):
    swapped = replace(tone(), snr=(0, 25.0, 0, 25.0, 0, 25.0))
    assert search(tmp_path, swapped).candidates == ()


def test_the_frequency_is_that_at_the_first_on_when_the_target_comes_second(tmp_path):
    swapped = replace(tone(), snr=(0, 25.0, 0, 25.0, 0, 25.0))
    (found,) = search(tmp_path, swapped, on=(1, 3, 5)).candidates
    expected = swapped.track_mhz(np.array([SCAN_STEP_S]))[0]
    assert abs(found.frequency_mhz - expected) < 12e-6
    assert found.target == "HIP1_OFF"


def test_bursts_gain_steps_and_the_dc_spike_are_no_candidates_and_do_not_hide_a_tone(tmp_path):
    result = search(
        tmp_path,
        tone(),
        gains=(1, 1.4, 0.9, 1, 1.1, 0.7),
        bursts=((0, 3, 6.0), (0, 4, 6.0), (3, 9, 4.0)),
        spike=1e4,
    )
    (found,) = result.candidates
    assert abs(found.frequency_mhz - tone().frequency_mhz) < 12e-6


def test_candidates_are_identical_for_any_read_size_chunk_size_and_number_of_threads(tmp_path):
    wide = gbt_header(2**19)
    edges = (2**18 - 40, 2**18 + 160, 2**15 - 50)
    tones = [replace(tone(drift=3.0), frequency_mhz=wide.frequency(channel)) for channel in (*edges, 60_000, 400_000)]
    sky = Sky(header=wide, emitters=(*tones, random_interference(np.random.default_rng(2), 1499.5, 50.0, "drifting")))
    tables = []
    for name, writer, suffix in (("a", "rawspec", ".h5"), ("b", "blimpy", ".h5"), ("c", "rawspec", ".fil")):
        (tmp_path / name).mkdir()
        paths = write_cadence(tmp_path / name, sky, 1, writer=writer, suffix=suffix)
        for block, threads in ((2**20, 1), (2**16, 2), (150_000, 3), (2**18, 1)):
            with open_cadence(paths) as observations:
                settings = SearchSettings(block_channels=block, threads=threads)
                write_json(tmp_path / "found.json", search_cadence(observations, make_detector(), settings).candidates)
            tables.append((tmp_path / "found.json").read_bytes())
    assert len(set(tables)) == 1
    assert tables[0].count(b"frequency_mhz") == len(tones)


def test_training_search_and_evaluation_give_the_encoder_the_same_input(tmp_path, monkeypatch):
    settings, rng = ExampleSettings(chans=2**15, tones=6, interference=6), np.random.default_rng(4)
    emitters = draw_emitters(rng, settings)
    power = draw_power(rng, [*emitters[0], *emitters[1]], settings)
    paths = [tmp_path / f"{position}.h5" for position in range(6)]
    patch = replace(patch_header(settings), nfpc=settings.chans)
    for path, header, one in zip(paths, Sky(header=patch).headers(), power, strict=True):
        write_h5(path, header, [one])
    shown: list[np.ndarray] = []
    blind = make_detector()
    detector = replace(blind, encode=lambda snippet: shown.append(snippet) or blind.encode(snippet))

    for name, drawn in {"patch_header": patch, "draw_emitters": emitters, "draw_power": power}.items():
        monkeypatch.setattr(f"aetherscan.train.examples.{name}", lambda *_, drawn=drawn: drawn)
    tracks, _ = draw_examples(rng, settings)
    trained = {snippet.tobytes() for snippet in tracks.snippets}
    seen = []
    with open_cadence(paths) as observations:
        for look in (
            lambda: search_cadence(observations, detector),
            lambda: release_search(detector, SearchSettings())(paths, (0, 2, 4)),
        ):
            shown.clear()
            look()
            seen.append([snippet.tobytes() for snippet in shown])
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 3
    assert {np.rint(one * UINT8_MAX).astype(np.uint8).tobytes() for one in shown} >= trained
    assert len(trained) >= 3


COMPILED = """
import sys
from pathlib import Path
from factories import make_detector, make_header, make_power
from numba.core.dispatcher import Dispatcher
from aetherscan.io import open_cadence
from aetherscan.search.pipeline import _windows_with, search_cadence
from sentinel.workers.preload import warm_up

def compiled():
    kernels = (v for n, m in list(sys.modules.items()) if n.startswith("aetherscan") for v in vars(m).values())
    return {(v.py_func.__qualname__, str(one)) for v in kernels if isinstance(v, Dispatcher) for one in v.signatures}

warm_up(make_detector())
before = compiled()
with open_cadence(sys.argv[1:]) as observations:
    found = search_cadence(observations, make_detector())
print(len(found.candidates), len(before), sorted(compiled() - before))
"""


def test_a_warmed_up_worker_compiles_nothing_during_a_search(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone(),)), 1)
    asked = [sys.executable, "-c", COMPILED, *map(str, paths)]
    here = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}
    output = subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout
    candidates, kernels, more = output.split(maxsplit=2)
    assert (candidates, more.strip()) == ("1", "[]")
    assert int(kernels) > 5


def test_every_hit_and_every_track_is_accounted_for(tmp_path):
    counts = search(tmp_path, tone(), tone(20000, 0.1, 3), replace(tone(27000), snr=(30.0,) * 6)).counts
    assert counts["hits"] + counts["joint_hits"] == counts["tracks"] + counts["joint_hits_on_a_track"]
    lost = sum(count for name, count in counts.items() if name.startswith("tracks_"))
    ends = ("merged_into_another", "below_threshold", "candidates")
    assert counts["tracks"] == lost + sum(counts[end] for end in ends)
    assert counts["candidates"] == 2


def test_tones_beside_a_dc_spike_a_coarse_channel_edge_and_the_band_edge_are_found(tmp_path):
    header = replace(gbt_header(2**16), nfpc=2**14)
    places = (2**13 + 12, 2**14 + 6, 60, 2**16 - 200, 3 * 2**14 - 90)
    tones = [
        Emitter(frequency_mhz=header.frequency(place), drift_hz_s=-0.1, width_hz=4, snr=(15, 0) * 3) for place in places
    ]
    paths = write_cadence(tmp_path, Sky(header=header, emitters=tuple(tones), spike=1e4), 5)
    with open_cadence(paths) as observations:
        found = [c.frequency_mhz for c in search_cadence(observations, make_detector()).candidates]
    assert found == pytest.approx(sorted(one.frequency_mhz for one in tones), abs=12e-6)


def test_blocks_cover_the_band_once_and_hold_their_overlap(tmp_path):
    header = gbt_header(100_000, rows=64)
    paths = write_cadence(tmp_path, Sky(header=header), 1, suffix=".fil")
    with open_cadence(paths) as observations:
        expected = [observation.read(0, header.nchans) for observation in observations]
        limits = []
        for batch in read_blocks(observations, 2048, read_channels=30_000):
            for block in batch:
                low, high = block.start - block.overlap[0], block.stop + block.overlap[1]
                for held, power in zip(block.power, expected, strict=True):
                    columns = held[:, block.column : block.column + high - low]
                    np.testing.assert_array_equal(columns, power[:, low:high])
                assert (low, high) == (max(0, block.start - 2048), min(block.stop + 2048, header.nchans))
                limits.append((block.start, block.stop))
        assert limits == block_limits(header.nchans, 64)
        (block,) = chain.from_iterable(read_blocks(observations, 2048, read_channels=30_000, only=(70_000, 70_000)))
        assert block.start <= 70_000 < block.stop


def test_bytes_read_counts_the_bits_of_a_sample(tmp_path):
    nchans, sizes = 2**13, {}
    for nbits in (8, 32):
        paths = []
        for position in range(6):
            header = make_header(nchans=nchans, nbits=nbits, tstart=59103 + position * SCAN_STEP_S / SECONDS_PER_DAY)
            paths.append(tmp_path / f"{nbits}-{position}.fil")
            write_fil(paths[-1], header, [make_power(header, position)])
        with open_cadence(paths) as observations:
            sizes[nbits] = search_cadence(observations, make_detector()).bytes_read
    assert sizes == {8: 6 * 16 * nchans, 32: 6 * 16 * nchans * 4}


def test_sums_dropped_beyond_the_limit_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("aetherscan.search.dedoppler.MOST_HITS", 3)
    monkeypatch.setattr("aetherscan.search.on_off.MOST_HITS", 3)
    result = search(tmp_path, *(tone(channel, 0.1) for channel in range(3000, 30_000, 3000)))
    assert result.counts["sums_dropped"] == result.counts["sums_above_threshold"] - 2 * 3
    assert result.counts["sums_dropped"] > 0


def test_memory_is_bounded_even_if_a_chunk_is_larger():
    assert read_width(2**20, pixels=96, preferred=10**9, retained=0) == 2 * 2**20
    assert read_width(2**16, pixels=96, preferred=10**6, retained=0) == 15 * 2**16
    assert read_width(2**20, pixels=1800, preferred=10**9, retained=10**4) == 2**30 // 7200 - 10**4


def test_tracks_on_one_line_are_merged_into_the_brightest_and_neighbors_are_kept():
    tracks = np.zeros((3, track_columns(6)))
    tracks[:, START], tracks[:, WIDTH] = (1000.0, 1004.0, 1200.0), 2.0
    tracks[:, SNR::2] = [[10] * 6, [12] * 6, [9] * 6]
    assert merge(tracks, geometry_of(Sky(header=HEADER).headers())) == [1, 2]


def test_a_trace_reports_the_stage_that_rejected_a_signal(tmp_path):
    faint = replace(tone(25_000), snr=(30.0, 0, 30.0, 0, 0, 0))
    rfi = replace(tone(3000, 0.0), snr=(30.0,) * 6)
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone(), faint, rfi)), 1)

    def story(frequency_mhz):
        with open_cadence(paths) as observations:
            return "\n".join(trace(observations, make_detector(), SearchSettings(), frequency_mhz))

    assert "a candidate" in story(tone().frequency_mhz)
    assert "stops here: weak in an on" in story(faint.frequency_mhz)
    assert "stops here: in an off" in story(rfi.frequency_mhz)
    assert "follow: no hit within" in story(HEADER.frequency(14_000))
    assert "channel of a DC spike" in story(HEADER.frequency(2**14))
    assert "is not in it" in story(1600.0)


def test_observations_that_make_no_cadence_are_refused_with_the_reason():
    six = list(Sky(header=HEADER).headers())
    with pytest.raises(CadenceError, match="expected at least two ONs and one OFF, found 1 and 1"):
        check_cadence(six[:2], (0,))
    with pytest.raises(CadenceError, match="HIP2_OFF: expected 32768 channels from 1500"):
        check_cadence([*six[:3], replace(six[3], fch1=1400.0), *six[4:]], (0, 2, 4))
    with pytest.raises(CadenceError, match="expected a start after MJD"):
        check_cadence([six[1], six[0], *six[2:]], (0, 2, 4))


@pytest.mark.parametrize("lit", [False, True])
def test_in_a_real_slice_with_a_burst_and_a_spike_only_the_injected_tone_is_a_candidate(tmp_path, lit):
    real = np.load(Path(__file__).parents[1] / "data" / "ddo210_coarse469_slice.npz")["data"]
    header = gbt_header(real.shape[1], source_name="DDO210")
    one = Emitter(frequency_mhz=header.frequency(5000), drift_hz_s=0.8, width_hz=5.0, snr=(25.0, 0, 25.0, 0, 25.0, 0))
    noise_of_rows = (MAD_TO_SIGMA * np.median(np.abs(real - np.median(real, 1)[:, None]), 1)).astype(float)
    paths = []
    for position, each in enumerate(Sky(header=header).headers()):
        power = real.copy()
        if lit:
            add_emitter(
                power, one, position=position, start_s=position * SCAN_STEP_S, tsamp=header.tsamp, fch1=header.fch1,
                foff=header.foff, noise=noise_of_rows,
            )  # fmt: skip
        paths.append(tmp_path / f"{position}.h5")
        write_h5(paths[-1], each, [power])
    with open_cadence(paths) as observations:
        found = search_cadence(observations, make_detector()).candidates
    assert [abs(c.frequency_mhz - one.frequency_mhz) < 12e-6 for c in found] == [True] * lit


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "guess"},
        {"threshold": 2.0},
        {"max_drift_hz_s": 0.0},
        {"block_channels": 1},
        {"hit_snr": 1.0},
        {"threads": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        SearchSettings(**wrong)


def test_the_table_keeps_every_digit_of_a_frequency(tmp_path):
    (found,) = search(tmp_path, tone()).candidates
    write_csv(tmp_path / "candidates.csv", [found])
    head, row = (tmp_path / "candidates.csv").read_text().splitlines()
    assert head == ",".join(columns([field.name for field in fields(Candidate)], 6))
    assert float(row.split(",")[0]) == found.frequency_mhz


def test_a_target_named_like_a_formula_is_text_to_a_spreadsheet(tmp_path):
    (found,) = search(tmp_path, tone()).candidates
    write_csv(tmp_path / "candidates.csv", [replace(found, target="=cmd()")])
    with (tmp_path / "candidates.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["target"] == "'=cmd()"
    assert float(row["drift_rate_hz_s"]) == found.drift_rate_hz_s


def test_a_target_named_like_a_formula_of_tex_does_not_break_the_picture(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone(),)), 1)
    with open_cadence(paths) as observations:
        (found,) = search_cadence(observations, make_detector()).candidates
        png = waterfall_png(observations, replace(found, target="$\\frac{x}$\n<!channel>"))
    assert png.startswith(b"\x89PNG")
