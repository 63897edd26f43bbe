"""A real Chromium for tests: the machine's own, or else the one that Playwright has installed."""

import os
import shutil
import warnings
from contextlib import contextmanager

import pytest


def chromium() -> str | None:
    """Where it is; None where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if os.path.exists(own) else None


CHROMIUM = chromium()
WITHOUT = "no Chromium, so apexgen app is tested in no browser; install it with: playwright install chromium"
if CHROMIUM is None:  # a skipped test is a letter among many; a warning stands in the summary
    warnings.warn(WITHOUT, stacklevel=1)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT)


@contextmanager
def launched():
    """A browser, until the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
