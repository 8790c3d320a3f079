"""A page gets the pixels of a stamp as bytes: in units of the noise, what was not measured as 0, and nothing else."""

import http.client
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from panels import HEADER, keep_stamp, packed, row_of, scans_of, unpacked
from visitor import Browser as Visitor
from visitor import desk_of

from sentinel.web.stamp import HIGH, LOW, MOST_ROWS, pack, quantized, sigmas


def decoded(pixels):
    return np.sinh(LOW + (pixels - 1.0) * (HIGH - LOW) / 254)


def test_a_byte_keeps_noise_to_a_fiftieth_of_a_sigma_and_bright_pixels_to_some_percent():
    values = np.concatenate([np.linspace(-4, 4, 999), np.geomspace(4, 1400, 999)]).astype(np.float32)[None]
    errors = np.abs(decoded(quantized(values)) - values)
    assert errors[np.abs(values) < 1].max() < 0.035
    assert (errors / np.maximum(np.abs(values), 1)).max() < 0.035


def test_what_is_beyond_the_scale_is_clipped_and_what_was_not_measured_is_0():
    assert list(quantized(np.array([[np.nan, -1e6, 1e9, np.inf]], np.float32))[0]) == [0, 1, 255, 255]


def test_noise_has_a_scatter_of_1_whatever_its_level_and_the_slope_of_the_bandpass():
    rng = np.random.default_rng(1)
    power = (1e10 * np.linspace(1, 3, 4096) * (1 + 0.07 * rng.standard_normal((16, 4096)))).astype(np.float32)
    power[3] *= 40
    power[5], power[7, 100:200], power[:, 300] = np.nan, 0, np.inf
    scaled = sigmas(power)
    assert np.isnan(scaled[5]).all()
    assert np.isnan(scaled[7, 100:200]).all()
    assert np.isnan(scaled[:, 300]).all()
    measured = np.delete(scaled, 5, axis=0)
    assert np.nanstd(measured, axis=1) == pytest.approx(1, abs=0.06)
    assert abs(np.nanmean(measured[:, :500])) < 0.1


@pytest.mark.parametrize("pattern", ["A", "AB", "ABACA.", "ABACADAEAFAG"])
def test_each_scan_is_a_panel_with_its_own_start_and_a_missing_one_is_empty(pattern):
    head, panels = unpacked(packed(pattern))
    assert [panel["role"] for panel in head["panels"]] == ["ON" if letter == "A" else "OFF" for letter in pattern]
    for i, (panel, pixels) in enumerate(zip(head["panels"], panels, strict=True)):
        assert panel["rows"] == (0 if pattern[i] == "." else 16)
        if pattern[i] != ".":
            assert panel["start_s"] == pytest.approx(i * 341, abs=1e-3)
            assert (panel["snr"] is not None, pixels.shape) == (True, (16, 2048))
        else:
            assert panel["snr"] is None
    assert head["curvature_hz_s2"] == 0.0


def test_the_tone_is_where_the_track_is():
    head, panels = unpacked(packed(bend=2e-4))
    for panel, pixels in zip(head["panels"][::2], panels[::2], strict=True):
        for t in range(16):
            at_s = panel["start_s"] + (t + 0.5) * panel["tsamp"]
            mhz = head["frequency_mhz"] + (0.6 * at_s + 1e-4 * at_s**2) * 1e-6
            assert np.argmax(pixels[t]) == round((mhz - panel["fch1"]) / panel["foff"])


def test_long_scans_are_averaged_to_few_rows_of_the_same_duration():
    head, (pixels,) = unpacked(packed("A", header=replace(HEADER, ntime=500, tsamp=0.6)))
    assert len(pixels) <= MOST_ROWS
    assert head["panels"][0]["tsamp"] * len(pixels) == pytest.approx(300, abs=5)


def test_no_number_is_nan_in_the_header_and_no_name_or_probability_is_in_it():
    row = row_of(snr=[float("nan")] * 6)
    head, _ = unpacked(pack({**row, "probability": 0.9, "target": "X"}, scans_of(row)))
    assert {panel["snr"] for panel in head["panels"]} == {None}
    assert not {"probability", "target"} & set(head)


@pytest.fixture
def reader(judged, tmp_path):
    with desk_of(judged, tmp_path) as port:
        yield Visitor(port)


def get(port, path):
    """Return status, headers and bytes of a reply."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()


def test_the_stamp_of_a_candidate_is_served_once_and_kept_by_the_browser(reader, judged, tmp_path):
    keep_stamp(judged, tmp_path / "var" / "pictures")
    status, headers, content = get(reader.port, "/candidates/1/stamp")
    head, panels = unpacked(content)
    assert (status, head["panels"][0]["role"]) == (200, "ON")
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert headers["ETag"]
    expected = unpacked(packed())[1]
    assert np.abs(panels[0].astype(int) - expected[0]).max() <= 1
    page = reader.get("/candidates/1")[2]
    assert 'data-stamp="/candidates/1/stamp?v=' in page
    assert "data-stamp" not in reader.get("/candidates/2")[2]


@pytest.mark.parametrize("broken", ["gone", "damaged", "elsewhere"])
def test_a_stamp_that_is_gone_damaged_or_outside_of_the_pictures_is_not_served(reader, judged, tmp_path, broken):
    folder = keep_stamp(judged, tmp_path / ("else" if broken == "elsewhere" else "var/pictures"))
    if broken == "gone":
        (folder / "stamp.json").unlink()
    if broken == "damaged":
        (folder / "scan-3.h5").write_bytes(b"no power")
    for path in ("/candidates/1/stamp", "/candidates/2/stamp", "/candidates/999/stamp", f"/candidates/{10**12}/stamp"):
        status, headers, _ = get(reader.port, path)
        assert (status, headers["Cache-Control"]) == (404, "no-store")


def test_where_to_look_again_is_text_and_names_what_is_missing(reader):
    status, _, text = reader.get("/candidates/1/follow")
    assert (status, text) == (200, "follow up: no prediction, because the header names no telescope of known place\n")
    assert reader.get("/candidates/999/follow")[0] == 404
    assert 429 in {reader.get("/candidates/1/follow")[0] for _ in range(30)}
    assert 'href="/candidates/1/follow"' in reader.get("/candidates/1")[2]
