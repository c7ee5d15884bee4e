"""A headless Chromium for tests of pages; without one the tests are skipped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium(
    profile: Path, *, width: int = 1400, height: int = 1000, downloads: Path | None = None
) -> Iterator[Any]:
    """Give a driver of Chromium, with a log of all that it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    server = shutil.which("chromedriver")
    if binary is None or server is None:
        pytest.skip("there is no Chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                 "no-first-run", "disable-background-networking", "force-device-scale-factor=1",
                 f"window-size={width},{height}", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    if downloads is not None:
        options.add_experimental_option(
            "prefs",
            {"download.default_directory": str(downloads), "download.prompt_for_download": False},
        )
    driver = webdriver.Chrome(options, webdriver.ChromeService(server))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def addresses(driver: Any) -> list[str]:
    """Return what the page asked for since the last call, other than what it holds itself."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [url for url in found if not url.startswith(("data:", "blob:"))]


def complaints(driver: Any) -> list[str]:
    """Return the page's errors and warnings, but for jsPsych's word on file://."""
    said = [entry["message"] for entry in driver.get_log("browser")]
    return [line for line in said if "jsPsych detected that it is running" not in line]
