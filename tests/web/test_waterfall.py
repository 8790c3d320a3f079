"""The waterfall in the page, read back from its canvas: views, scales, measurements, keys."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from panels import keep_stamp, packed

from sentinel.web.app import STATIC
from sentinel.web.exposure import HEADERS

PAGE = (
    '<!doctype html><title>w</title><link rel="stylesheet" href="/static/desk.css">'
    '<link rel="stylesheet" href="/static/waterfall.css"><script type="module" src="/static/waterfall.js"></script>'
    '<body><input id="note"><div class="waterfall" data-stamp="/stamp"></div><img class="png" alt="">'
)
KINDS = {".js": "text/javascript", ".css": "text/css"}
BRIGHTEST = """(rows) => {
  const w = document.querySelector('.waterfall').waterfall, ratio = window.devicePixelRatio;
  return rows.map(([i, row]) => {
    const panel = w.stamp.panels[i], y = (w.tops[i] + ((row + 0.5) / panel.rows) * w.high) * ratio;
    const line = w.pen.getImageData(118 * ratio, y, w.width * ratio, 1), light = [];
    for (let x = 0; x < line.width; x += 1) light.push(line.data[4 * x] + line.data[4 * x + 1]);
    const most = Math.max(...light), at = light.map((v, x) => (v === most ? x : -1)).filter((x) => x >= 0);
    const hz = w.track(panel.start_s + (row + 0.5) * panel.tsamp);
    return [at.reduce((a, b) => a + b, 0) / at.length / ratio, w.xAt(hz) - 118];
  });
}"""
"""The brightest column of some rows, and the column of the track there."""
COLUMNS = """() => {
  const w = document.querySelector('.waterfall').waterfall, ratio = window.devicePixelRatio;
  return w.tops.map((top) => {
    const high = Math.floor(w.high * ratio), line = w.pen.getImageData(118 * ratio, top * ratio, w.width * ratio, high);
    const sums = new Array(line.width).fill(0);
    for (let i = 0; i < line.data.length; i += 4) sums[(i / 4) % line.width] += line.data[i] / high;
    return sums;
  });
}"""
"""Mean red of each column of each panel: bright pixels are red to white in magma."""


@contextmanager
def serving(stamp):
    """Serve a page with one waterfall under the rules of the desk."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            kind, body = "text/html", PAGE.encode()
            if self.path.startswith("/static/"):
                file = STATIC / self.path.removeprefix("/static/")
                kind, body = KINDS.get(file.suffix, "text/plain"), file.read_bytes()
            elif self.path == "/stamp":
                kind, body = "application/octet-stream", stamp
            self.send_response(200 if body else 404)
            for name, value in (*HEADERS.items(), ("Content-Type", kind), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def window(browser):
    """Open one window for all stamps."""
    page = browser.new_page(viewport={"width": 900, "height": 900})
    yield page
    page.close()


@contextmanager
def shown(window, stamp):
    """Open the page of a stamp; nothing may be refused or fail."""
    problems = []

    def hear(message):
        if message.type == "error" and "favicon" not in message.text:
            problems.append(message.text)

    def fail(error):
        problems.append(str(error))

    window.on("console", hear)
    window.on("pageerror", fail)
    with serving(stamp) as url:
        window.goto(url)
        window.wait_for_selector(".waterfall canvas[aria-label]")
        yield window
    window.remove_listener("console", hear)
    window.remove_listener("pageerror", fail)
    assert problems == []


def ask(page, expression):
    return page.evaluate(f"() => {{ const w = document.querySelector('.waterfall').waterfall; return {expression}; }}")


def bright(sums):
    """Return the columns of a panel that are much brighter than its noise."""
    dark = sorted(sums)[len(sums) // 2]
    return [x for x, value in enumerate(sums) if value > dark + 60]


@pytest.mark.parametrize("changes", [{}, {"bend": 3e-4}, {"drift": 0.0}, {"drift": -0.9}])
def test_the_de_drifted_view_puts_a_tone_in_one_channel_in_three_panels(window, changes):
    with shown(window, packed(**changes)) as page:
        page.keyboard.press("o")
        page.keyboard.press("d")
        ask(page, "(w.x0 = -140, w.x1 = 140, w.draw())")
        panels, channel_px = page.evaluate(COLUMNS), ask(page, "w.width / w.span() * w.finest()")
    columns = [bright(sums) for sums in panels]
    assert [bool(found) for found in columns] == [True, False] * 3
    for found in columns[::2]:
        assert found[-1] - found[0] < channel_px + 2
    starts = [found[0] for found in columns[::2]]
    assert max(starts) - min(starts) <= 1


def test_without_de_drift_the_tone_moves_and_the_overlay_follows_each_panels_own_start(window):
    with shown(window, packed(level=1.5)) as page:
        page.keyboard.press("o")
        ask(page, "(w.x0 = -100, w.x1 = 1300, w.draw())")
        brightest = page.evaluate(BRIGHTEST, [[0, 0], [0, 15], [2, 8], [4, 0], [4, 15]])
    assert all(abs(found - expected) < 4 for found, expected in brightest)


def test_a_box_measures_snr_drift_width_and_frequency(window):
    with shown(window, packed()) as page:
        straight = ask(page, "w.measure({panel: 0, row0: 0, row1: 16, hz0: -60, hz1: 260})")
        ask(page, "w.toggle('dedrift')")
        followed = ask(page, "w.measure({panel: 4, row0: 0, row1: 16, hz0: -60, hz1: 60})")
        off = ask(page, "w.measure({panel: 1, row0: 0, row1: 16, hz0: -60, hz1: 60})")
    level = 0.5 / 0.07 * 4  # in each of 16 rows
    for found in (straight, followed):
        assert found["snr"] == pytest.approx(level, rel=0.2)
        assert found["drift_hz_s"] == pytest.approx(0.6, abs=0.03)
        assert found["width_hz"] < 6
    assert straight["frequency_mhz"] == pytest.approx(1500 - 1000 * 2.7939677e-6, abs=2e-5)
    assert off["snr"] < 6


def test_a_box_is_dragged_and_its_result_is_told_and_a_drag_pans(window):
    with shown(window, packed()) as page:
        before = ask(page, "w.x0")
        box = page.locator(".waterfall canvas").bounding_box()
        page.mouse.move(box["x"] + 400, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 300, box["y"] + 40)
        page.mouse.up()
        panned = ask(page, "w.x0")
        page.get_by_role("button", name="Measure").click()
        page.mouse.move(box["x"] + 130, box["y"] + 3)
        page.mouse.down()
        page.mouse.move(box["x"] + 380, box["y"] + 80)
        page.mouse.up()
        said = page.locator(".waterfall output").inner_text()
    assert panned > before
    assert "scan 1 (ON): SNR" in said
    assert "Hz/s, width" in said


def test_scales_are_common_or_of_each_panel_linear_or_logarithmic_and_keys_brighten(window):
    with shown(window, packed(level=2.0)) as page:
        common = ask(page, "w.scale")
        page.get_by_role("button", name="One scale").click()
        each = ask(page, "w.scale")
        page.keyboard.press("]")
        brighter = ask(page, "w.scale")
        page.get_by_role("button", name="Log").click()
        log = ask(page, "w.color(3, 10) > w.color(2, 10) && w.color(10, 10) === 255 && w.color(-1, 10) === 0")
    assert len(set(common)) == 1
    assert each[0] > each[1]
    assert brighter[0] < each[0]
    assert log


def test_zoom_keeps_to_the_stamp_and_no_key_acts_while_a_field_has_the_focus(window):
    with shown(window, packed()) as page:
        limits = ask(page, "w.limits()")
        for _ in range(20):
            ask(page, "(w.zoom(2), w.pan(1e9), w.draw())")
        assert ask(page, "[w.x0, w.x1]") == pytest.approx(limits)
        for _ in range(20):
            ask(page, "(w.zoom(0.5), w.draw())")
        assert ask(page, "w.span() / w.finest()") == pytest.approx(8)
        page.locator("#note").focus()
        page.keyboard.press("d")
        assert ask(page, "w.view.dedrift") is False
        page.locator(".waterfall canvas").focus()
        page.keyboard.press("0")
        page.keyboard.press("d")
        assert ask(page, "w.view.dedrift") is True


@pytest.mark.parametrize("pattern", ["A", "ABACA.", "ABACADAEAFAG"])
def test_one_to_twelve_scans_and_a_missing_one_are_drawn(window, pattern):
    with shown(window, packed(pattern, level=float("nan"))) as page:
        page.keyboard.press("d")
        assert ask(page, "w.tops.length") == len(pattern)
        label = page.locator(".waterfall canvas").get_attribute("aria-label")
    assert label.startswith(f"Waterfall of {len(pattern)} scans in time order; SNR: ON 30.0")
    assert ("OFF missing" in label) == ("." in pattern)


def test_without_a_stamp_the_picture_stays(window):
    with serving(b"") as url:
        window.goto(url)
        window.wait_for_load_state("networkidle")
        assert window.locator(".waterfall").inner_html() == ""


def test_the_pages_of_a_candidate_and_of_the_queue_show_it_in_place_of_the_picture(people, judged, tmp_path):
    for number in (1, 2):
        keep_stamp(judged, tmp_path / "var" / "pictures", number)
    anna = people("anna")
    anna.open("/candidates/1")
    anna.page.wait_for_selector(".waterfall canvas")
    assert ask(anna.page, "w.view.dedrift") is False
    anna.open("/label?blind=1")
    anna.page.wait_for_selector(".waterfall canvas")
    anna.press("d")
    assert ask(anna.page, "w.view.dedrift") is True
    anna.press("s")
    anna.page.wait_for_selector(".card[data-card='2'] .waterfall canvas")
    assert anna.page.locator(".png:visible").count() == 0
    anna.press("s")
    anna.page.wait_for_selector(".card[data-card='3']")
    assert anna.page.locator(".waterfall canvas").count() == 0
