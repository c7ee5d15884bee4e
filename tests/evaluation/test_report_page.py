"""The page works in a real browser, without a network, and pictures of a row move together."""

import base64
import io
import json
import time

import numpy as np
import pytest

from browser import addresses, chromium, complaints
from made_up_run import METHODS, PICTURES, TASKS, write_run
from sfumato.evaluation.report import read_run, svg_plots, write_page

pytestmark = pytest.mark.slow

#: How each picture of a row is shown, as the browser computes it, in parts of its stage.
SHOWN = """
    const row = document.querySelectorAll('.row')[arguments[0]];
    return [...row.querySelectorAll('.cell .stage img')].map((image) => {
        const stage = image.parentElement.getBoundingClientRect();
        const box = image.getBoundingClientRect();
        return [(box.left - stage.left) / stage.width, (box.top - stage.top) / stage.height,
                box.width / stage.width, box.height / stage.height];
    });
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run"))
    run = read_run(folder)
    page = folder / "report.html"
    write_page(run, page, plots=svg_plots(run))
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.page = page.as_uri()
        yield driver


@pytest.fixture(autouse=True)
def _fresh(driver):
    driver.get(driver.page)
    driver.execute_script("return document.fonts.ready")


def wheel(driver, row, at, delta):
    x, y = driver.execute_script(
        "const stage = document.querySelectorAll('.row')[arguments[0]].querySelector('.stage');"
        "stage.scrollIntoView({block: 'center'});"
        "const box = stage.getBoundingClientRect();"
        "return [box.left + arguments[1] * box.width, box.top + arguments[2] * box.height]",
        row,
        *at,
    )
    time.sleep(0.5)  # a page that was scrolled just now goes on scrolling
    event = {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": delta}
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    time.sleep(0.2)
    return x, y


def key(driver, name):
    driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": name})
    driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": name})
    time.sleep(0.05)


def drag(driver, start, by):
    x, y = start
    for kind, dx, dy in (("mousePressed", 0, 0), ("mouseMoved", *by), ("mouseReleased", *by)):
        event = {"type": kind, "x": x + dx, "y": y + dy, "button": "left", "buttons": 1}
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", event | {"clickCount": 1})


def same(boxes):
    return all(box == pytest.approx(boxes[0], abs=2e-3) for box in boxes)


def test_it_opens_offline_with_all_its_pictures(driver):
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    addresses(driver)
    driver.get(driver.page)
    driver.execute_script("for (const image of document.images) image.loading = 'eager'")
    driver.execute_async_script(
        "Promise.all([...document.images].map(i => i.decode())).then(arguments[0])"
    )
    widths = driver.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert sorted(set(widths)) == [16, 64]
    n_results = len(TASKS) * len(PICTURES) * len(METHODS) - 1
    assert len(widths) == n_results + 2 * len(TASKS) * len(PICTURES)
    assert [url for url in addresses(driver) if not url.startswith("chrome")] == [driver.page]
    assert complaints(driver) == []
    assert len(driver.find_elements("css selector", ".plots svg")) == 4


def test_the_wheel_zooms_all_pictures_of_a_row_and_no_others(driver):
    before = driver.execute_script(SHOWN, 0)
    assert before == [pytest.approx([0, 0, 1, 1], abs=1e-3)] * 5
    start = wheel(driver, 0, (0.25, 0.75), -400)
    boxes = driver.execute_script(SHOWN, 0)
    assert same(boxes)
    left, top, k, _ = boxes[0]
    assert k > 1.5
    assert (0.25 - left) / k == pytest.approx(0.25, abs=5e-3)  # what is under the pointer stays
    assert (0.75 - top) / k == pytest.approx(0.75, abs=5e-3)
    assert driver.execute_script(SHOWN, 1)[0] == pytest.approx([0, 0, 1, 1], abs=1e-3)
    grain = "return getComputedStyle(document.querySelector('.stage img')).imageRendering"
    assert driver.execute_script(grain) == "pixelated"
    drag(driver, start, (-20, -12))
    moved = driver.execute_script(SHOWN, 0)
    assert same(moved)
    width = driver.find_element("css selector", ".stage").size["width"]
    assert moved[0][0] == pytest.approx(left - 20 / width, abs=5e-3)
    assert not driver.execute_script("return document.getElementById('large').open")


def test_a_row_is_left_by_zooming_out(driver):
    wheel(driver, 0, (0.5, 0.5), -300)
    wheel(driver, 0, (0.5, 0.5), 900)
    assert driver.execute_script(SHOWN, 0)[0] == pytest.approx([0, 0, 1, 1], abs=1e-3)
    at = driver.execute_script("return scrollY")
    wheel(driver, 0, (0.5, 0.5), 300)
    time.sleep(0.5)
    assert driver.execute_script("return scrollY") > at


def test_two_fingers_zoom(driver):
    x, y = driver.execute_script(
        "const stage = document.querySelector('.stage');"
        "stage.scrollIntoView({block: 'center'});"
        "const box = stage.getBoundingClientRect();"
        "return [box.left + box.width / 2, box.top + box.height / 2]"
    )
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for kind, apart in (("touchStart", 10), ("touchMove", 15), ("touchMove", 30)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    boxes = driver.execute_script(SHOWN, 0)
    assert same(boxes)
    assert boxes[0][2] == pytest.approx(3, rel=0.05)


def test_all_can_be_done_by_keys(driver):
    driver.execute_script("document.querySelector('.row').focus()")
    key(driver, "+")
    key(driver, "+")
    key(driver, "ArrowRight")
    left, _, k, _ = driver.execute_script(SHOWN, 0)[0]
    assert k == pytest.approx(1.25**2, abs=1e-2)
    assert left == pytest.approx(-(k - 1) / 2 - 0.1, abs=1e-2)
    key(driver, "Enter")
    name = "return document.getElementById('large-name').textContent"
    assert driver.execute_script(name) == "a: input"
    key(driver, "ArrowRight")
    assert driver.execute_script(name) == "a: bicubic <interpolation>"
    assert "PSNR 20.00 dB" in driver.find_element("id", "large-values").text
    large = driver.execute_script(
        "const image = document.querySelector('dialog img').getBoundingClientRect();"
        "const stage = document.querySelector('dialog .stage').getBoundingClientRect();"
        "return [(image.left - stage.left) / stage.width, image.width / stage.width]"
    )
    assert large == pytest.approx([left, k], abs=1e-2)
    key(driver, "ArrowDown")
    assert driver.execute_script(name) == "b: bicubic <interpolation>"
    key(driver, "ArrowRight")
    assert driver.execute_script(name) == "b: ddnm-20"  # ddnm-10 has no picture b
    driver.execute_script("document.getElementById('large').close()")
    time.sleep(0.1)
    assert driver.execute_script("return document.activeElement.dataset.picture") == "b"


def mean_on_screen(element):
    from PIL import Image

    time.sleep(0.5)
    shot = Image.open(io.BytesIO(base64.b64decode(element.screenshot_as_base64)))
    return float(np.asarray(shot.convert("RGB")).mean())


def test_the_difference_is_that_of_the_pictures(driver):
    stage = driver.find_element("css selector", ".cell[data-name='ddnm-20'] .stage")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
    photograph = mean_on_screen(stage) / 0.9
    key(driver, "d")
    # ddnm-20 is 0.9 of the photograph: the difference is a tenth of it, shown four times.
    assert mean_on_screen(stage) == pytest.approx(0.4 * photograph, rel=0.1)
    key(driver, "d")
    assert mean_on_screen(stage) == pytest.approx(0.9 * photograph, rel=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(driver, scheme):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(driver.page)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
    contrast = json.loads(
        driver.execute_script(
            "const style = getComputedStyle(document.body);"
            "const grey = (c) => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);"
            "return JSON.stringify([grey(style.color), grey(style.backgroundColor)])"
        )
    )
    assert (contrast[0] > contrast[1]) == (scheme == "dark")
    assert abs(contrast[0] - contrast[1]) > 400
    size = {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
