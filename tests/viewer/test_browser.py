"""The live page as a person meets it: a server of its own, headless Chromium, loopback only."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import Chromium, visit
from tests.data.dicoms import dicom, words
from tests.forked import Forked
from tests.viewer.conftest import CLASSES, png

import diascope.audit
import diascope.viewer.serve  # noqa: F401 (each fork has them)

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
import numpy as np
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

Driver = Any


def start(*options: object, temporary: Path) -> tuple[Forked, str]:
    """A server process, and the address that it prints."""
    process = Forked("view", *options, "--no-open", folder=temporary.parent, TMPDIR=temporary)
    process.wait_for(lambda: "\n" in process.said())
    found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", process.said())
    assert found, process.said()
    return process, found[0]


def interrupted(process: Forked) -> str:
    process.interrupt()
    assert process.end() == 130, process.said()
    assert "Traceback" not in process.said()
    assert process.out.read_text() == ""
    return process.said()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to be browsed, a report to be linked to, and a folder for what must not come."""
    folder = tmp_path_factory.mktemp("view")
    for number, label in enumerate(CLASSES * 5):
        place = folder / "data" / label / f"Mustermann-{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(seed=number))
    (folder / "audit").mkdir()
    (folder / "audit" / "report.html").write_text(
        "<!doctype html><title>An audit</title><script>document.title += self.origin</script>"
    )
    (folder / "one.png").write_bytes(png(side=60))
    for name, side in (("mask", 60), ("small", 30)):
        region = np.zeros((side, side), np.uint8)
        region[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 255
        Image.fromarray(region).save(folder / f"{name}.png")
    grey = np.random.default_rng(0).integers(0, 255, (48, 40), np.uint8)
    (folder / "Mustermann^Erika.png").write_bytes(dicom(grey))
    (folder / "broken.dcm").write_bytes(dicom(grey)[:-900])
    (folder / "temporary").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(run: Path, folder: Path) -> Iterator[str]:
    options = ("--eps", "0.1,0.5,2", "--steps", 3, "--data", folder / "data")
    process, address = start(
        run, *options, "--report", folder / "audit", temporary=folder / "temporary"
    )
    try:
        yield address
        err = interrupted(process)
    finally:
        process.kill()
    assert not any(word in err for word in words())
    assert list((folder / "temporary").iterdir()) == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


@pytest.fixture
def page(browser: Chromium, server: str) -> Driver:
    driver = browser.emptied()
    driver.get(server)
    until(driver, lambda: body(driver).get_attribute("data-ready") == "yes")
    return driver


def body(driver: Driver) -> Any:
    return driver.find_element(By.TAG_NAME, "body")


def until(driver: Driver, true: Any) -> None:
    WebDriverWait(driver, 150, poll_frequency=0.05).until(lambda _: true())


def shown(driver: Driver, selector: str) -> list[Any]:
    return [e for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]


def read(driver: Driver, selector: str, what: str = "innerText") -> list[Any]:
    """A property of every visible element, all read at once: the page may redraw in between."""
    script = (
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((e) => e.getClientRects().length).map((e) => e[arguments[1]])"
    )
    return driver.execute_script(script, selector, what)


def captions(driver: Driver) -> list[str]:
    return read(driver, ".plates figcaption")


def idle(driver: Driver, maps: int = 1) -> bool:
    busy = driver.find_element(By.ID, "case").get_attribute("aria-busy")
    return busy == "false" and len(read(driver, ".plates .heat")) == maps


def put_in(driver: Driver, file: Path) -> None:
    driver.find_element(By.ID, "file").send_keys(str(file))
    until(driver, lambda: idle(driver))


def attack(driver: Driver) -> None:
    driver.find_element(By.ID, "attack").click()
    until(driver, lambda: idle(driver, 2))


def test_an_image_is_put_in_and_attacked_without_an_error_or_a_request_outside(
    page, server, folder
):
    put_in(page, folder / "one.png")
    assert page.find_element(By.ID, "title").text == "Image 1"
    assert "24 × 24 pixels, from 60 × 60" in page.find_element(By.ID, "case-size").text
    assert len(read(page, ".bars tbody tr")) == 3
    assert len(captions(page)) == 1
    attack(page)
    assert [c.split("\n")[0] for c in captions(page)] == [
        "Map, no attack", "Attacked, eps 0.5", captions(page)[2].split("\n")[0], "Map under attack"
    ]  # fmt: skip
    assert "roken" in page.find_element(By.CSS_SELECTOR, ".least").text
    widths = page.execute_script("return [...document.images].map((i) => i.naturalWidth)")
    assert set(widths) == {24}
    assert page.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert f"{server}work" in urls
    assert [u for u in urls if not u.startswith((server, "data:", "about:"))] == []


def test_an_image_that_is_dropped_before_the_models_are_there_is_read_then(browser, server, folder):
    driver = browser.emptied()
    later = (
        "const now = window.fetch; window.held = true;"
        "window.fetch = async (path, ...more) => {"
        " while (path === 'state' && window.held) await new Promise((go) => setTimeout(go, 20));"
        " return now(path, ...more); };"
    )
    add = "Page.addScriptToEvaluateOnNewDocument"
    script = driver.execute_cdp_cmd(add, {"source": later})["identifier"]
    try:
        visit(driver, server, "#zone")
        assert body(driver).get_attribute("data-ready") is None
        driver.execute_script(
            "const given = new DataTransfer(), bytes = Uint8Array.from(arguments[0]);"
            "given.items.add(new File([bytes], 'one.png', { type: 'image/png' }));"
            "document.dispatchEvent(new DragEvent('drop', { dataTransfer: given }));",
            list((folder / "one.png").read_bytes()),
        )
        until(driver, lambda: "when they are there" in body(driver).text)
        driver.execute_script("window.held = false")
        until(driver, lambda: body(driver).get_attribute("data-ready") == "yes")
        until(driver, lambda: idle(driver))
        assert driver.find_element(By.ID, "title").text == "Image 1"
        assert "when they are there" not in body(driver).text
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})


def test_the_slider_the_keys_and_the_map_alone(page, folder):
    put_in(page, folder / "one.png")
    attack(page)
    page.find_element(By.ID, "eps").send_keys(Keys.HOME)
    assert captions(page)[1].startswith("Attacked, eps 0.1\n")
    assert page.find_element(By.ID, "eps").get_attribute("aria-valuetext") == "eps 0.1"
    before = read(page, ".plates .base", "src")[1]
    page.execute_script("document.activeElement.blur()")
    body(page).send_keys("++")
    assert captions(page)[1].startswith("Attacked, eps 2\n")
    assert read(page, ".plates .base", "src")[1] != before
    below = ".plates .below"
    assert read(page, below)
    body(page).send_keys("m")
    assert not read(page, below)
    first = read(page, ".plates .heat", "src")[0]
    Select(page.find_element(By.ID, "target")).select_by_visible_text("nevus")
    until(page, lambda: idle(page, 2))
    assert "evidence for nevus" in captions(page)[0]
    Select(page.find_element(By.ID, "method")).select_by_value("gradcam")
    until(page, lambda: idle(page, 2))
    assert read(page, ".plates .heat", "src")[0] != first


def test_the_outline_of_a_mask_is_drawn_on_every_picture_and_hidden_by_a_key(page, folder):
    put_in(page, folder / "one.png")
    attack(page)
    assert not shown(page, ".outline, #edges")
    page.find_element(By.ID, "mask").send_keys(str(folder / "small.png"))
    alert = page.find_element(By.ID, "alert")
    until(page, alert.is_displayed)
    assert alert.text == "The mask is 30 × 30 pixels, and its image 60 × 60."
    page.find_element(By.ID, "mask").send_keys(str(folder / "mask.png"))
    until(page, lambda: len(shown(page, ".outline")) == 5)  # the image, and four pictures of it
    assert not alert.is_displayed()
    within = page.execute_script(
        "return [...document.querySelectorAll('.outline')].every((svg) => {"
        " const line = svg.lastChild.getBoundingClientRect(), all = svg.getBoundingClientRect();"
        " const part = (line.left - all.left) / all.width;"
        " return Math.abs(part - 0.25) < 0.05 && Math.abs(line.width / all.width - 0.5) < 0.06; })"
    )
    assert within  # the mask lies in the middle, half as wide as the image
    page.execute_script("document.activeElement.blur()")
    body(page).send_keys("l")
    assert not shown(page, ".outline")
    page.find_element(By.ID, "outline").click()
    assert len(shown(page, ".outline")) == 5
    put_in(page, folder / "one.png")  # another image has none
    assert not shown(page, ".outline, #edges")


def test_it_is_worked_by_the_keyboard_alone(page, folder):
    seen = []
    for _ in range(14):
        ActionChains(page).send_keys(Keys.TAB).perform()
        seen.append(page.switch_to.active_element.get_attribute("id") or "")
    assert [s for s in dict.fromkeys(seen) if s in ("theme", "file")] == ["theme", "file"]
    put_in(page, folder / "one.png")
    body(page).send_keys("a")
    until(page, lambda: idle(page, 2))
    for _ in range(30):
        ActionChains(page).send_keys(Keys.TAB).perform()
        seen.append(page.switch_to.active_element.get_attribute("id") or "")
    assert {"method", "target", "norm", "steps", "attack", "eps", "forget"} <= set(seen)
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('button, select, input')].filter((e) =>"
        " !(e.labels && e.labels.length) && !e.textContent.trim() && !e.getAttribute('aria-label'))"
        ".map((e) => e.outerHTML)"
    )
    assert unnamed == []


def test_a_dicom_file_under_another_name_shows_no_name_and_a_broken_one_a_sentence(page, folder):
    put_in(page, folder / "Mustermann^Erika.png")
    html = page.page_source
    assert not any(word in html for word in words())
    page.find_element(By.ID, "file").send_keys(str(folder / "broken.dcm"))
    alert = page.find_element(By.ID, "alert")
    until(page, alert.is_displayed)
    assert alert.text.startswith("The file is truncated")
    assert page.find_element(By.ID, "title").text == "Image 1"


def test_images_of_the_data_are_browsed_and_forgotten(page):
    until(page, lambda: len(shown(page, "#samples-thumbs img[src]")) == 12)
    page.find_element(By.ID, "samples-on").click()
    assert page.find_element(By.ID, "samples-place").text == "13–15 of 15"
    Select(page.find_element(By.ID, "samples-class")).select_by_visible_text("nevus")
    assert page.find_element(By.ID, "samples-place").text == "1–5 of 5"
    shown(page, "#samples-thumbs button")[2].click()
    until(page, lambda: idle(page))
    assert page.find_element(By.ID, "case-facts").text == "True class: nevus"
    assert "Mustermann" not in page.page_source
    page.find_element(By.ID, "forget").click()
    until(page, lambda: not shown(page, "#case"))
    assert not shown(page, "#held")


def test_the_report_opens_in_a_sandbox(page, server):
    assert page.find_element(By.ID, "report").is_displayed()
    with urllib.request.urlopen(f"{server}report", timeout=10) as answer:
        assert answer.headers["content-security-policy"].startswith("sandbox")
    page.get(f"{server}report")
    assert page.title == "An auditnull"  # its scripts run, and are strangers to the viewer


def test_no_width_makes_the_page_scroll_sideways(page, folder):
    put_in(page, folder / "one.png")
    attack(page)
    for width in (360, 800):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_light_and_dark(page):
    def paper() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = paper()
    page.find_element(By.ID, "theme").click()
    assert paper() != light


def test_the_page_stands_while_the_models_load_and_an_interrupt_ends_that_too(run, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process, address = start(run, temporary=temporary)
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"Loading the models" in answer.read()
        with urllib.request.urlopen(f"{address}state", timeout=20) as answer:
            assert json.load(answer)["state"] == "loading"
        interrupted(process)
    finally:
        process.kill()
    assert list(temporary.iterdir()) == []
    port = int(re.findall(r":(\d+)/", address)[0])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 2)
