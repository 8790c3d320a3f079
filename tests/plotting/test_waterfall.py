"""A waterfall shows every scan on one scale, says when it started and what it is, and hides no signal."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from factories import make_candidate, observe
from matplotlib.figure import Figure
from matplotlib.image import imread

from aetherscan.header import gbt_header
from aetherscan.io import ArrayObservation, absent_observation
from aetherscan.plotting.style import MASKED
from aetherscan.plotting.waterfall import HIGHEST, waterfall_png
from aetherscan.simulate.injection import Emitter

HEADER = gbt_header(4096)
MHZ = HEADER.frequency(2000)


def candidate(scans=6, **changes):
    return make_candidate(scans, **{"frequency_mhz": MHZ, "tstart_mjd": HEADER.tstart, **changes})


def tone(scans=6, snr=40.0, off=0.0):
    strengths = tuple(off if i % 2 else snr for i in range(scans))
    return Emitter(frequency_mhz=MHZ, drift_hz_s=0.3, width_hz=4.0, snr=strengths)


@pytest.fixture
def drawn(monkeypatch):
    """Return the figures that are saved while a test runs."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: figures.append(figure) or save(figure, *a, **k))
    return figures


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


@pytest.mark.parametrize("pattern", ["A", "ABA", "ABACAD", "ABACADAEAFAG"])
def test_each_scan_has_its_role_its_start_in_utc_and_its_snr(drawn, pattern):
    on = tuple(i for i, letter in enumerate(pattern) if letter == "A")
    waterfall_png(observe(pattern, tone(12), header=HEADER), candidate(len(pattern)), on)
    starts = [text for text in words(drawn[0]) if re.fullmatch(r"(ON|OFF)  \d\d:\d\d:\d\d", text)]
    assert [text.split()[0] for text in starts] == ["ON" if letter == "A" else "OFF" for letter in pattern]
    assert [text.split()[1] for text in starts[:2]] == ["00:32:58", "00:38:39"][: len(pattern)]
    assert words(drawn[0]).count("SNR 20.0") == len(pattern)
    assert any("2020-09-11 UTC" in text for text in words(drawn[0]))


@pytest.mark.parametrize(("snr", "highest"), [(5.0, HIGHEST[0]), (4000.0, HIGHEST[1])])
def test_all_panels_and_the_color_bar_have_one_scale_with_its_unit(drawn, snr, highest):
    waterfall_png(observe("ABACAD", tone(snr=snr), header=HEADER), candidate())
    assert {image.norm.vmax for image in images(drawn[0])} == {highest}
    (bar,) = [axes for axes in drawn[0].axes if axes.get_ylabel()]
    assert bar.get_ylabel() == "SNR of a pixel (sigma)"
    assert bar.get_ylim()[1] == highest


@pytest.mark.parametrize("bend", [0.0, 4e-4])
def test_the_lines_beside_the_track_follow_it_through_every_panel_and_can_be_left_out(drawn, bend):
    observations = observe("ABACAD", tone(), header=HEADER)
    waterfall_png(observations, candidate(curvature_hz_s2=bend))
    waterfall_png(observations, candidate(curvature_hz_s2=bend), track=False)
    with_lines, without = drawn
    assert [len(axes.lines) for axes in without.axes[:6]] == [0] * 6
    last = with_lines.axes[5].lines
    middle_hz = (last[0].get_xdata()[0] + last[1].get_xdata()[0]) / 2
    at_s = 5 * 341.0
    assert middle_hz == pytest.approx(0.3 * at_s + bend / 2 * at_s**2, abs=0.1)


def test_the_lines_do_not_cover_the_signal(drawn):
    waterfall_png(observe("ABACAD", tone(), header=HEADER), candidate())
    panel, pixels = drawn[0].axes[0], images(drawn[0])[0]
    row = np.asarray(pixels.get_array())[8]
    left, right = pixels.get_extent()[:2]
    brightest_hz = left + (np.argmax(row) + 0.5) * (right - left) / len(row)
    at = 8.5 / 16 * 24
    beside_hz = [np.interp(at, range(25), line.get_xdata()) for line in panel.lines]
    assert min(beside_hz) + 8 < brightest_hz < max(beside_hz) - 8


def test_what_was_not_measured_is_gray_and_a_missing_off_says_so(drawn):
    observations = observe("ABACAD", tone(), header=HEADER)
    power = observations[2].read(0, HEADER.nchans).copy()
    power[3:6], power[:, 2100:2200] = np.nan, 0
    observations[2] = ArrayObservation(observations[2].header, power)
    observations[3] = absent_observation(observations[3].header)
    picture = imread(io.BytesIO(waterfall_png(observations, candidate())))
    gray = np.array([int(MASKED[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert (np.abs(picture[..., :3] - gray).max(axis=2) < 0.01).mean() > 0.09  # a sixth of the panels' area, and more
    masked = np.ma.getmaskarray(images(drawn[0])[2].get_array())
    assert masked[3:6].all()
    assert masked[0].any()
    assert not masked[0].all()
    assert {"missing", "no data"} <= set(words(drawn[0]))


@pytest.mark.parametrize("name", ["$\\frac{x}$\n<!channel>", "=cmd()" * 99, "\u202e$$", ""])
def test_a_hostile_name_is_text_and_stays_within_the_picture(drawn, name):
    png = waterfall_png(observe("ABACAD", tone(), header=HEADER), replace(candidate(), target=name, probability=None))
    assert imread(io.BytesIO(png)).shape[:2] == (740, 720)
    assert all("\n" not in text for text in words(drawn[0]))
    renderer = drawn[0].canvas.get_renderer()
    assert all(0 <= edge <= 720 for text in drawn[0].texts for edge in text.get_window_extent(renderer).intervalx)


def test_long_scans_are_binned_and_descending_and_ascending_bands_look_alike(drawn):
    up = replace(HEADER, foff=-HEADER.foff, fch1=HEADER.frequency(HEADER.nchans - 1))
    for header in (HEADER, up):
        waterfall_png(observe("ABA", tone(), header=header, rows=[600, 600, 16]), candidate(3), (0, 2))
    for figure in drawn:
        assert np.asarray(images(figure)[0].get_array()).shape[0] == 200
    spans = [images(figure)[0].get_extent()[:2] for figure in drawn]
    assert spans[0][0] > spans[0][1]
    assert spans[1][0] < spans[1][1]
