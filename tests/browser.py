"""A real browser on the pages of a store: Debian's Chromium, driven by Playwright, offline."""

import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from sentinel.web.session import new_link

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


@contextmanager
def chromium():
    """Start Chromium without a window; skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: install the test packages")
    found = next((path for path in CHROMIUM if shutil.which(path)), None)
    if found is None:
        pytest.skip("no Chromium here: apt install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, headless=True, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


class Person:
    """A browser window of one person. `problems` lists foreign requests, errors and refused scripts."""

    def __init__(self, browser, store, port, name="", **options):
        self.store, self.port, self.name, self.problems = store, port, name, []
        self.scripts = options.get("java_script_enabled", True)
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        self.context.set_default_timeout(60_000)
        self.context.route("**/*", self._check)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", self._heard)
        if name:
            self.open(f"/login?code={new_link(store, name)}")
            self.follow("main button")
            assert self.page.url == f"http://127.0.0.1:{port}/"

    def _check(self, route):
        if urlsplit(route.request.url).netloc == f"127.0.0.1:{self.port}":
            route.continue_()
        else:
            self.problems.append(f"foreign request: {route.request.url}")
            route.abort()

    def _heard(self, message):
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(f"console: {message.text}")

    def open(self, path):
        """Open a page, and wait until it hears keys."""
        self.page.goto(f"http://127.0.0.1:{self.port}{path}")
        if self.scripts:
            self.page.wait_for_selector("body[data-keys]")

    def follow(self, selector):
        """Click what leads to another page, once, and wait until that page is there."""
        with self.page.expect_navigation():
            self.page.click(selector)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def sees(self, selector, text):
        """Wait until an element holds a text."""
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def said(self, text, count=1):
        """Wait until the strip at the bottom says something as often as this."""
        self.page.wait_for_function(
            "([text, count]) => document.getElementById('strip').innerText.split(text).length > count",
            arg=[text, count],
        )

    def close(self):
        self.context.close()
        assert self.problems == [], self.problems
