"""One headless Chromium for the tests of pages; of all hosts it reaches this machine alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,1000",
)


class Chromium:
    """A browser that is begun when it is first asked for, and again where it has gone."""

    def __init__(self, profiles: Callable[[], Path]) -> None:
        self._profiles = profiles  # a new folder for its user's data at each call
        self._driver: Any = None

    def emptied(self) -> Any:
        """Return its driver on an empty page, its logs read and its screen as it was.

        The test is skipped where there is no browser.
        """
        errors = pytest.importorskip(
            "selenium.common.exceptions", reason="selenium is not installed"
        )
        if self._driver is None:
            self._driver = self._begun()
        driver = self._driver
        try:
            driver.get("about:blank")
        except errors.WebDriverException:  # it was killed by others on this machine
            self.end()
            driver = self._driver = self._begun()
        driver.get_log("browser"), driver.get_log("performance")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        return driver

    def end(self) -> None:
        """End the browser, if it was begun."""
        if self._driver is not None:
            self._driver.quit()
            self._driver = None

    def _begun(self) -> Any:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        found = shutil.which("chromium"), shutil.which("chromedriver")
        if not all(found):
            pytest.skip("chromium and chromedriver are not installed")
        options = webdriver.ChromeOptions()
        options.binary_location = found[0]
        for flag in (*FLAGS, f"--user-data-dir={self._profiles()}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        return webdriver.Chrome(options=options, service=Service(found[1]))


def visit(driver: Any, url: str, selector: str) -> None:
    """Go to a page from an empty one and wait until an element that it must show is shown.

    On a loaded machine ``get`` may return while the empty page still stands.
    """
    from selenium.webdriver.support.wait import WebDriverWait

    driver.get("about:blank")
    driver.get(url)
    WebDriverWait(driver, 60).until(lambda driver: shown(driver, selector))


def shown(driver: Any, selector: str) -> list[Any]:
    """Return the elements of a page that fit ``selector`` and are not hidden."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())",
        selector,
    )
