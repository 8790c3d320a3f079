"""Training examples equal what a search cuts out, whatever the number of threads, and a training ends cleanly."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aetherscan.cadence.geometry import geometry_of
from aetherscan.errors import CadenceError, FormatError, PowerError
from aetherscan.header import gbt_header
from aetherscan.io import write_fil
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.cutouts import (
    UINT8_MAX,
    _quantize_exactly,
    quantization_table,
    quantize,
    snippet_level,
    track_snippet,
)
from aetherscan.search.features import MEASUREMENTS
from aetherscan.search.follow import DRIFT, FIELDS, START, WIDTH
from aetherscan.simulate.injection import Emitter, add_line
from aetherscan.simulate.sky import Sky, write_cadence
from aetherscan.train.background_cache import empty_arrays, load_background
from aetherscan.train.backgrounds import STAMP, Source, into_channels, sources
from aetherscan.train.batches import BatchSettings, open_batches
from aetherscan.train.examples import HINT, draw, draw_examples
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.render import render_snippet
from aetherscan.train.streams import Split, Stream

SMALL = ExampleSettings(chans=2**14)
SETTINGS = BatchSettings(seed=5, num_target_backgrounds=8, signal_injection_chunk_size=64, examples=SMALL)
CADENCE = geometry_of(Sky(header=gbt_header(2**14)).headers())
ENDLESS = """
import sys
from aetherscan.train.batches import BatchSettings, open_batches
from aetherscan.train.random_skies import ExampleSettings
if __name__ == "__main__":
    small = ExampleSettings(chans=2**14)
    settings = BatchSettings(num_target_backgrounds=4, signal_injection_chunk_size=64, examples=small)
    with open_batches(settings, 2) as source:
        for _ in source.epoch(0, 4_000_000, (6.0, 20.0)):
            print("batch", flush=True)
"""


@pytest.fixture(scope="module")
def arrays():
    arrays = empty_arrays(SMALL, 1)
    load_background(arrays, Source(settings=SMALL, seed=1, split=Split.TRAINING, count=1), 0, 0)
    return arrays


def read(settings=SETTINGS, threads=1, epochs=(0, 1), count=96, batch=32):
    """Return the snippets and the labels of some epochs."""
    with open_batches(settings, threads) as source:
        batches = (source.epoch(number, count, (6.0, 20.0), batch=batch) for number in epochs)
        return [[np.concatenate(column) for column in zip(*epoch, strict=True)] for epoch in batches]


@pytest.fixture(scope="module")
def two_epochs():
    return read()


def test_the_quantization_table_gives_the_byte_that_the_formula_rounds_to():
    begins, ends = quantization_table()
    near = [np.nextafter(ends[:-1], np.float32(side)) for side in (-1000, 1000)]
    rng = np.random.default_rng(1)
    values = np.concatenate([ends[:-1], *near, rng.normal(0, 3, 2000), rng.uniform(-50, 300, 2000)]).astype(np.float32)
    assert [quantize(value, begins, ends) for value in values] == _quantize_exactly(values)[0].tolist()


@pytest.mark.parametrize(
    ("width", "drift"), [(1.0, 0.0), (1.5, 2.1), (2.0, -1.9), (4.0, 0.0), (8.0, 0.0), (15.0, 0.0), (30.0, 0.0)]
)
def test_an_example_is_byte_for_byte_what_a_search_cuts_out_around_a_signal_in_native_channels(arrays, width, drift):
    rng, bins, level = np.random.default_rng(2), SMALL.bins, snippet_level(np.hypot(width, drift))
    track = np.zeros(len(FIELDS))
    track[[START, DRIFT, WIDTH]] = 8192, drift, width
    firsts = np.floor(track[START] + drift * CADENCE.middles + 0.5).astype(int) - (bins << level) // 2
    rows = (CADENCE.middles - 8)[:, None] + np.arange(17)
    edges = track[START] + 0.3 + np.array([drift * rows, 0.5 * drift * rows + rng.uniform(-30, 30)])
    widths, snrs = np.array([width, 40.0]), np.array([[30.0, 0, 28, 0, 33, 0], [90.0] * 6])
    brightness, native = rng.uniform(0, 1, (2, 6, 16)), arrays.sigmas[0].copy()
    for i in range(6):
        for e in range(2):
            add_line(native[i], edges[e, i], width=widths[e], snr=snrs[e, i], noise=np.ones(16),
                     brightness=brightness[e, i])  # fmt: skip
    served = track_snippet(
        NormalizedBlock(sigmas=native, noise=arrays.noise[0], weights=arrays.noise[0], lengths=(16,) * 6),
        track,
        CADENCE,
        (16, bins),
    )
    out = np.empty((6, 16, bins), np.uint8)
    render_snippet(
        arrays.sigmas[0], arrays.noise[0], arrays.bins[0], quantization_table(), firsts, level,
        edges - firsts[:, None], widths / 2.3548200450309493, brightness, snrs, out,
    )  # fmt: skip
    np.testing.assert_array_equal(out, np.rint(served * UINT8_MAX).astype(np.uint8))


def test_examples_do_not_depend_on_threads_batch_size_or_where_a_training_resumes(two_epochs):
    for epochs in (read(threads=3), [two_epochs[0], *read(epochs=(1,), batch=21)]):
        for expected, found in zip(two_epochs, epochs, strict=True):
            np.testing.assert_array_equal(expected[0], found[0])
            np.testing.assert_array_equal(expected[1], found[1])
    assert (two_epochs[0][0] != two_epochs[1][0]).mean() > 0.5


def test_an_epoch_that_is_left_for_another_cannot_be_continued(two_epochs):
    with open_batches(SETTINGS, 2) as source:
        left = source.epoch(0, 40_000, (6.0, 20.0))
        next(left)
        next(source.epoch(0, 96, (6.0, 20.0), validation=True))
        with pytest.raises(RuntimeError, match="found another epoch started"):
            list(left)
        snippets = np.concatenate([batch for batch, _ in source.epoch(1, 96, (6.0, 20.0))])
    np.testing.assert_array_equal(snippets, two_epochs[1][0])


def test_a_quarter_of_the_examples_is_background_and_signals_are_centered_and_in_the_ons_alone():
    settings = replace(SETTINGS, windows=0.0, examples=replace(SMALL, interference=0))
    with open_batches(settings) as source:
        snippets, labels = map(np.concatenate, zip(*source.epoch(0, 128, (60.0, 61.0)), strict=True))
    assert labels.reshape(-1, 4).tolist() == [[0, 0, 1, 1]] * 32
    middle = snippets[..., 236:276].astype(float).mean(axis=(2, 3)).reshape(-1, 4, 6).mean(axis=0)
    quiet, _, tone, _ = middle - snippets[::4].mean()
    assert np.abs(quiet).max() < 1
    assert tone[[0, 2, 4]].min() > 4
    assert tone[[1, 3, 5]].max() < 1


def test_a_background_that_cannot_be_read_ends_the_epoch_with_its_cause(tmp_path):
    np.save(tmp_path / "stamps.npy", np.random.default_rng(1).random((16, 6, 16, STAMP), np.float32))
    settings = BatchSettings(train_files=(tmp_path / "stamps.npy",), examples=SMALL, num_target_backgrounds=8)
    with open_batches(settings) as source:
        (tmp_path / "stamps.npy").unlink()
        with pytest.raises(FormatError, match="No such file"):
            next(source.epoch(0, 4, (6.0, 20.0)))


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_source_of_batches_ends_with_its_process_and_needs_no_other_and_no_shared_memory(kill):
    command = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"batch\n"
        assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() == ""
        assert "/dev/shm" not in Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(kill)
        process.stdout.close()
        process.wait(60)


def test_stamps_are_used_in_runs_and_whole_files_are_kept_for_validation(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(1).chisquare(204, (24, 6, 16, STAMP)).astype("f4"))
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    training, validation = sources(files, SMALL, seed=1, stamps=100, run=4, runs=3)
    assert {paths for paths, _ in training.parts} == {(str(files[0]),)}
    assert {paths for paths, _ in validation.parts} == {(str(files[1]),)}
    assert sorted(k for _, stamps in training.parts for k in stamps) == [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23]
    normalized, _ = training.normalized(0)
    assert normalized.sigmas.shape == (6, 16, SMALL.chans)
    assert normalized.sigmas.std() == pytest.approx(1, abs=0.02)
    np.save(files[0], np.ones((3, 6, 16, 256), np.float32))
    expected = r"shape \(n, 6, 16, 4096\) or \(n, 6, 16, 512\), found float32 of \(3, 6, 16, 256\)"
    with pytest.raises(FormatError, match=expected):
        sources(files, SMALL, seed=1, stamps=100, run=4, runs=3)


def test_dead_stamps_are_left_out_and_counted(tmp_path):
    stamps = np.random.default_rng(1).chisquare(204, (20, 6, 16, STAMP)).astype("f4")
    stamps[3], stamps[5, 2], stamps[6, 1], stamps[7, 0] = 0, np.nan, -5, 9
    np.save(tmp_path / "a.npy", stamps)
    training, validation = sources([tmp_path / "a.npy"], SMALL, seed=1, stamps=100, run=100, runs=1)
    used = [k for _, indices in (*training.parts, *validation.parts) for k in indices]
    assert len(used) == len(set(used)) == 16
    assert not {3, 5, 6, 7} & set(used)
    line = "4 of 20 stamps hold no power and are not used: 1 with zeros (the first is stamp 3), "
    others = (
        "1 with NaN or infinite values (the first is stamp 5), 1 with negative values (the first is stamp 6), "
        "1 with equal values (the first is stamp 7)"
    )
    assert training.notes == (f"{tmp_path / 'a.npy'}: {line}{others}",)
    np.save(tmp_path / "a.npy", stamps[3:4])
    with pytest.raises(FormatError, match=r"1 of 1 stamps hold no power .+: expected positive power"):
        sources([tmp_path / "a.npy"], SMALL, seed=1, stamps=100, run=100, runs=1)


def test_a_single_file_needs_a_background_of_stamps_for_training_and_one_for_validation(tmp_path):
    side_by_side = SMALL.chans // STAMP
    stamps = np.random.default_rng(1).random((2 * side_by_side - 1, 6, 16, STAMP), np.float32) + 1
    np.save(tmp_path / "a.npy", stamps)
    with pytest.raises(FormatError, match=rf"least {2 * side_by_side} stamps, as a background is {side_by_side} side"):
        sources([tmp_path / "a.npy"], SMALL, seed=1, stamps=100, run=100, runs=1)


def test_stamps_of_bins_become_channels_with_the_noise_of_channels(tmp_path):
    channels = np.random.default_rng(1).chisquare(204, (16, 6, 16, STAMP)).astype("f4")
    bins = channels.reshape(16, 6, 16, 512, 8).mean(axis=-1)
    np.save(tmp_path / "a.npy", bins)
    divided = into_channels(bins[0], STAMP, np.random.default_rng(2))
    np.testing.assert_allclose(divided.reshape(6, 16, 512, 8).mean(axis=-1), bins[0], rtol=1e-5)
    for moment in (np.std, lambda x: ((x - x.mean()) ** 3).mean() / x.std() ** 3):
        assert moment(divided) == pytest.approx(moment(channels[0]), rel=0.1)
    training, _ = sources([tmp_path / "a.npy"], SMALL, seed=1, stamps=100, run=100, runs=1)
    normalized, again = training.normalized(0)[0], training.normalized(0)[0]
    assert normalized.sigmas.shape == (6, 16, SMALL.chans)
    assert normalized.sigmas.std() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(normalized.sigmas, again.sigmas)


def test_backgrounds_are_cut_from_the_band_of_a_cadence_in_files(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=gbt_header(4 * SMALL.chans)), 3, suffix=".fil")
    training, validation = sources(paths, SMALL, seed=1, stamps=100, run=100, runs=1)
    assert sorted(where[0] for _, where in (*training.parts, *validation.parts)) == [SMALL.chans * k for k in range(4)]
    normalized, cadence = training.normalized(1)
    assert normalized.sigmas.std() == pytest.approx(1, abs=0.05)
    assert cadence.headers[0].source_name == "HIP99427"
    with pytest.raises(CadenceError, match="expected a cadence"):
        sources(paths[:5], SMALL, seed=1, stamps=100, run=100, runs=1)


def test_pieces_of_band_without_power_are_left_out_and_decibels_are_refused(tmp_path):
    header = gbt_header(4 * SMALL.chans)
    rng = np.random.default_rng(1)
    power = {i: rng.chisquare(204, (16, header.nchans)).astype("f4") for i in range(6)}
    power[2][:, SMALL.chans : 2 * SMALL.chans] = 0
    for values, name in ((lambda x: x, "power"), (lambda x: 10 * np.log10(x + 1), "decibels")):
        paths = []
        for i, one in enumerate(Sky(header=header).headers()):
            write_fil(path := tmp_path / f"{name}{i}.fil", one, [values(power[i])])
            paths.append(path)
        if name == "power":
            training, validation = sources(paths, SMALL, seed=1, stamps=100, run=100, runs=1)
            used = sorted(first for _, (first,) in (*training.parts, *validation.parts))
            assert used == [0, 2 * SMALL.chans, 3 * SMALL.chans]
            assert "1 of 4 pieces of band hold no power and are not used: 1 with zeros" in training.notes[0]
            assert f"(the first is channel {SMALL.chans})" in training.notes[0]
        else:
            with pytest.raises(PowerError, match="expected linear power"):
                sources(paths, SMALL, seed=1, stamps=100, run=100, runs=1)


def test_a_line_of_a_real_band_is_interference_if_an_off_shows_it_and_otherwise_dropped(tmp_path):
    header = gbt_header(2 * SMALL.chans)
    unknown, hinted = (
        Emitter(frequency_mhz=header.frequency(channel), width_hz=6.0, snr=(30.0, off, 30.0, 0.0, 30.0, 0.0))
        for channel, off in ((5000, 0.0), (12_000, 4.8))
    )
    paths = write_cadence(tmp_path, Sky(header=header, emitters=(unknown, hinted)), 3, suffix=".fil")
    training, validation = sources(paths, SMALL, seed=1, stamps=100, run=100, runs=1)
    source = training if training.parts[0][1] == [0] else validation
    nothing, rng = replace(SMALL, tones=0, interference=0, windows=6), np.random.default_rng(1)
    tracks, windows = draw_examples(rng, nothing, source.normalized(0))
    assert tracks.labels.tolist() == [0]
    assert tracks.measurements[0, MEASUREMENTS.index("off_brightest")] > HINT
    assert 0 < len(windows.labels) < nothing.windows
    (drawn,) = draw(1, Stream.FOREST_FIT, range(3), replace(SMALL, tones=3, interference=2), source=source)
    signals = drawn["tracks"].only(drawn["tracks"].labels == 1)
    together = signals.measurements[:, MEASUREMENTS.index("on_together")]
    assert len(signals.labels) >= 5
    assert np.median(together / signals.snrs) == pytest.approx(1.05 * 3**0.5, rel=0.15)
    assert drawn["windows"].labels.any()
