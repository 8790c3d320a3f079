"""What the encoder is fed is what it will be served, the same whoever makes it, and nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aetherscan.cadence.geometry import geometry_of
from aetherscan.errors import CadenceError, FeedError, FormatError
from aetherscan.header import gbt_header
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.cutouts import UINT8_MAX, _shades, shade, shade_table, snippet_level, track_snippet
from aetherscan.search.features import MEASUREMENTS
from aetherscan.search.follow import DRIFT, FIELDS, START, WIDTH
from aetherscan.simulate.injection import Emitter, add_line
from aetherscan.simulate.sky import Sky, write_cadence
from aetherscan.train.background_cache import BackgroundArrays, fill, plan_of
from aetherscan.train.backgrounds import PLATE, Source, sources
from aetherscan.train.batches import FeedSettings, feed
from aetherscan.train.examples import HINT, draw, draw_examples
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.render import compose
from aetherscan.train.streams import Split, Stream

SMALL = ExampleSettings(chans=2**14)
SETTINGS = FeedSettings(seed=5, num_target_backgrounds=8, signal_injection_chunk_size=64, examples=SMALL)
CADENCE = geometry_of(Sky(header=gbt_header(2**14)).headers())
ENDLESS = """
import sys
from aetherscan.train.batches import FeedSettings, feed
from aetherscan.train.random_skies import ExampleSettings
if __name__ == "__main__":
    small = ExampleSettings(chans=2**14)
    with feed(FeedSettings(num_target_backgrounds=4, signal_injection_chunk_size=64, examples=small), 2) as made:
        for _ in made.epoch(0, 4_000_000, (6.0, 20.0)):
            print("fed", flush=True)
"""


@pytest.fixture(scope="module")
def shelf():
    shelf = BackgroundArrays(*(np.zeros(shape, kind) for kind, shape in plan_of(SMALL, 1).values()))
    fill(shelf, 0, Source(settings=SMALL, seed=1, split=Split.TRAINING, count=1), 0)
    return shelf


def fed(settings=SETTINGS, processes=1, epochs=(0, 1), count=96, batch=32):
    with feed(settings, processes) as made:
        shown = (made.epoch(number, count, (6.0, 20.0), batch=batch) for number in epochs)
        return [[np.concatenate(x) for x in zip(*one, strict=True)] for one in shown]


@pytest.fixture(scope="module")
def alone():
    return fed()


def test_a_shade_is_the_byte_that_serving_rounds_to():
    begins, ends = shade_table()
    near = [np.nextafter(ends[:-1], np.float32(side)) for side in (-1000, 1000)]
    rng = np.random.default_rng(1)
    values = np.concatenate([ends[:-1], *near, rng.normal(0, 3, 2000), rng.uniform(-50, 300, 2000)]).astype(np.float32)
    assert [shade(value, begins, ends) for value in values] == _shades(values)[0].tolist()


@pytest.mark.parametrize(
    ("width", "drift"), [(1.0, 0.0), (1.5, 2.1), (2.0, -1.9), (4.0, 0.0), (8.0, 0.0), (15.0, 0.0), (30.0, 0.0)]
)
def test_an_example_is_byte_for_byte_what_a_search_would_show_of_a_tone_in_native_channels(shelf, width, drift):
    rng, bins, level = np.random.default_rng(2), SMALL.bins, snippet_level(np.hypot(width, drift))
    track = np.zeros(len(FIELDS))
    track[[START, DRIFT, WIDTH]] = 8192, drift, width
    firsts = np.floor(track[START] + drift * CADENCE.middles + 0.5).astype(int) - (bins << level) // 2
    rows = (CADENCE.middles - 8)[:, None] + np.arange(17)
    edges = track[START] + 0.3 + np.array([drift * rows, 0.5 * drift * rows + rng.uniform(-30, 30)])
    widths, snrs = np.array([width, 40.0]), np.array([[30.0, 0, 28, 0, 33, 0], [90.0] * 6])
    brightness, native = rng.uniform(0, 1, (2, 6, 16)), shelf.sigmas[0].copy()
    for i in range(6):
        for e in range(2):
            add_line(native[i], edges[e, i], width=widths[e], snr=snrs[e, i], noise=np.ones(16),
                     brightness=brightness[e, i])  # fmt: skip
    served = track_snippet(
        NormalizedBlock(sigmas=native, noise=shelf.noise[0], weights=shelf.noise[0]), track, CADENCE, (16, bins)
    )
    out = np.empty((6, 16, bins), np.uint8)
    compose(
        shelf.sigmas[0], shelf.noise[0], shelf.shades[0], shade_table(), firsts, level,
        edges - firsts[:, None], widths / 2.3548200450309493, brightness, snrs, out,
    )  # fmt: skip
    np.testing.assert_array_equal(out, np.rint(served * UINT8_MAX).astype(np.uint8))


def test_two_processes_make_what_one_makes_and_a_resumed_training_sees_what_it_would_have_seen(alone):
    for epoch, others in ((0, fed(processes=2)), (1, fed(epochs=(1,), batch=21))):
        for first, second in zip(alone[epoch], others[-1 if len(others) == 1 else epoch], strict=True):
            np.testing.assert_array_equal(first, second)
    assert (alone[0][0] != alone[1][0]).mean() > 0.5


def test_every_fourth_example_is_quiet_and_signals_are_centred_and_in_the_ons_alone():
    with feed(replace(SETTINGS, windows=0.0)) as made:
        ((snippets, labels),) = [[np.concatenate(x) for x in zip(*made.epoch(0, 128, (60.0, 61.0)), strict=True)]]
    assert labels.reshape(-1, 4).tolist() == [[0, 0, 1, 1]] * 32
    middle = snippets[..., 236:276].astype(float).mean(axis=(2, 3)).reshape(-1, 4, 6).mean(axis=0)
    quiet, _, tone, _ = middle - snippets[::4].mean()
    assert np.abs(quiet).max() < 1
    assert tone[[0, 2, 4]].min() > 4
    assert tone[[1, 3, 5]].max() < 1


def test_a_process_that_is_killed_or_fails_is_an_error_with_its_cause(tmp_path):
    with feed(SETTINGS) as made:
        epoch = made.epoch(0, 40_000, (6.0, 20.0))
        next(epoch)
        os.kill(made._crew._members[0][0].pid, signal.SIGKILL)
        with pytest.raises(FeedError, match=r"expected an answer, found it ended \(-9\)"):
            list(epoch)
    np.save(tmp_path / "plates.npy", np.ones((16, 6, 16, PLATE), np.float32))
    with feed(FeedSettings(train_files=(tmp_path / "plates.npy",), examples=SMALL, num_target_backgrounds=8)) as made:
        (tmp_path / "plates.npy").unlink()
        with pytest.raises(FeedError, match=r"(?s)background 0, failed:.*FormatError.*No such file"):
            next(made.epoch(0, 4, (6.0, 20.0)))


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_a_training_no_process_and_no_shared_memory_is_left(kill):
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as one:
        assert one.stdout.readline() == b"fed\n"
        children = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
        shared = [line for line in Path(f"/proc/{one.pid}/maps").read_text().splitlines() if "memfd:examples" in line]
        assert len(children) >= 2
        assert shared
        assert "/dev/shm" not in Path(f"/proc/{one.pid}/maps").read_text()
        one.send_signal(kill)
        one.stdout.close()
        one.wait(20)
    deadline = time.monotonic() + 20
    while (left := [pid for pid in children if Path(f"/proc/{pid}/cmdline").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_plates_are_read_in_chunks_and_whole_files_are_kept_to_validate_on(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(1).chisquare(204, (24, 6, 16, PLATE)).astype("f4"))
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    known, kept = sources(files, SMALL, seed=1, plates=100, chunk=4, chunks=3)
    assert {paths for paths, _ in known.parts} == {(str(files[0]),)}
    assert {paths for paths, _ in kept.parts} == {(str(files[1]),)}
    assert sorted(k for _, plates in known.parts for k in plates) == [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23]
    equalized, _ = known.equalized(0)
    assert equalized.sigmas.shape == (6, 16, SMALL.chans)
    assert equalized.sigmas.std() == pytest.approx(1, abs=0.02)
    np.save(files[0], np.ones((3, 6, 16, 512), np.float32))
    with pytest.raises(FormatError, match=r"shape \(n, 6, 16, 4096\), found float32 of \(3, 6, 16, 512\)"):
        sources(files, SMALL, seed=1, plates=100, chunk=4, chunks=3)


def test_a_cadence_in_files_gives_pieces_of_its_band(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=gbt_header(4 * SMALL.chans)), 3, suffix=".fil")
    known, kept = sources(paths, SMALL, seed=1, plates=100, chunk=100, chunks=1)
    assert sorted(where[0] for _, where in (*known.parts, *kept.parts)) == [SMALL.chans * k for k in range(4)]
    equalized, cadence = known.equalized(1)
    assert equalized.sigmas.std() == pytest.approx(1, abs=0.05)
    assert cadence.headers[0].source_name == "HIP99427"
    with pytest.raises(CadenceError, match="expected a cadence"):
        sources(paths[:5], SMALL, seed=1, plates=100, chunk=100, chunks=1)


def test_forests_learn_from_tones_in_real_bands_and_from_what_an_off_hints_at_but_not_from_what_is_in_the_ons_alone(
    tmp_path,
):
    header = gbt_header(2 * SMALL.chans)
    unknown, hinted = (
        Emitter(frequency_mhz=header.frequency(channel), width_hz=6.0, snr=(30.0, off, 30.0, 0.0, 30.0, 0.0))
        for channel, off in ((5000, 0.0), (12_000, 4.8))
    )
    paths = write_cadence(tmp_path, Sky(header=header, emitters=(unknown, hinted)), 3, suffix=".fil")
    known, kept = sources(paths, SMALL, seed=1, plates=100, chunk=100, chunks=1)
    source = known if known.parts[0][1] == [0] else kept
    nothing, rng = replace(SMALL, tones=0, interference=0, windows=6), np.random.default_rng(1)
    tracks, windows = draw_examples(rng, nothing, source.equalized(0))
    assert tracks.labels.tolist() == [0]
    assert tracks.measurements[0, MEASUREMENTS.index("off_brightest")] > HINT
    assert 0 < len(windows.labels) < nothing.windows
    (drawn,) = draw(1, Stream.FOREST_FIT, range(3), replace(SMALL, tones=3, interference=2), source=source)
    signals = drawn["tracks"].only(drawn["tracks"].labels == 1)
    together = signals.measurements[:, MEASUREMENTS.index("on_together")]
    assert len(signals.labels) >= 5
    assert np.median(together / signals.snrs) == pytest.approx(1.05 * 3**0.5, rel=0.15)
    assert drawn["windows"].labels.any()
