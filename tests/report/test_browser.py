"""The report as a reader meets it: in headless Chromium, with the network cut off."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.factory import make_results

from diascope.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Driver = Any


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    hosts = "--host-resolver-rules=MAP * ~NOTFOUND"
    for flag in (*FLAGS, hosts, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_results(cases=6), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(driver: Driver, report: Path) -> Driver:
    driver.get_log("browser"), driver.get_log("performance")
    driver.get("about:blank")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.get(report.as_uri())
    return driver


def shown(driver: Driver, selector: str) -> list[Any]:
    return [e for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]


def current(driver: Driver) -> str:
    (article,) = shown(driver, "article.case")
    return article.get_attribute("id")


def press(driver: Driver, *keys: str) -> None:
    for key in keys:
        driver.find_element(By.TAG_NAME, "body").send_keys(key)


def test_it_opens_without_the_network_and_without_an_error(page, report):
    assert page.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    outside = [u for u in urls if not u.startswith(("data:", "about:")) and u != report.as_uri()]
    assert report.as_uri() in urls
    assert outside == []
    names = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [n for n in names if not n.startswith("data:")] == []


def test_both_models_stand_on_the_page_and_their_pictures_are_drawn(page):
    heads = [e.text for e in shown(page, "#summary thead th")]
    assert {"standard", "pgd-l2", "pgd-l2 − standard"} <= set(heads)
    assert [e.text for e in shown(page, "article.case h4")] == ["standard", "pgd-l2"]
    assert len(shown(page, "article.case figure")) == 1 + 2 * 4
    loaded = page.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.querySelectorAll('image')].map(async (e) => {"
        " const i = new Image(); i.src = e.getAttribute('href'); await i.decode();"
        " return i.naturalWidth; })).then(done, (e) => done(String(e)))"
    )
    assert set(loaded) == {32}
    assert len(loaded) == 6 * (1 + 2 * (1 + 3 * 4))


def test_the_slider_and_its_keys_change_the_epsilon_of_every_plate(page):
    def captions() -> list[str]:
        return [e.text for e in shown(page, ".current [data-at] figcaption")]

    assert captions()[0].startswith("Attacked, eps 1\n✗ wrong nevus")
    page.find_element(By.ID, "eps").send_keys(Keys.HOME)
    assert captions()[0].startswith("Attacked, eps 0.25\n✓ right melanoma")
    assert len(captions()) == 6
    assert page.find_element(By.ID, "eps-now").text == "0.25"
    page.execute_script("document.activeElement.blur()")
    press(page, "+")
    assert captions()[0].startswith("Attacked, eps 0.5")
    press(page, "-", "-", "-")
    assert captions()[0].startswith("Attacked, eps 0.25")


def test_cases_are_walked_by_keyboard_by_button_and_by_thumbnail(page):
    assert current(page) == "case-1"
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert current(page) == "case-3"
    press(page, Keys.ARROW_LEFT)
    assert current(page) == "case-2"
    page.find_element(By.ID, "next").click()
    assert current(page) == "case-3"
    shown(page, ".thumbs button")[5].click()
    assert current(page) == "case-6"
    page.find_element(By.ID, "next").click()
    assert current(page) == "case-1"
    assert page.find_element(By.ID, "position").text == "Case 1 of 6"


def test_filters_choose_by_class_and_by_what_the_attack_did(page):
    Select(page.find_element(By.ID, "filter-class")).select_by_visible_text("nevus")
    assert page.find_element(By.ID, "position").text == "Case 1 of 2 that fit, 6 in all"
    assert current(page) == "case-2"
    press(page, Keys.ARROW_RIGHT)
    assert current(page) == "case-5"
    status = Select(page.find_element(By.ID, "filter-status"))
    status.select_by_value("broken-0")
    assert len(shown(page, ".thumbs button")) == 2
    status.select_by_value("broken-1")
    assert shown(page, "article.case") == []
    assert page.find_element(By.ID, "nothing").is_displayed()
    status.select_by_value("any-broken")
    page.find_element(By.ID, "eps").send_keys(Keys.HOME)
    assert shown(page, ".thumbs button") == []  # at the smallest epsilon nothing is broken


def test_the_map_can_stand_alone_and_the_outline_be_taken_away(page):
    assert shown(page, "article.case .base")
    press(page, "m")
    assert not shown(page, "article.case .base")
    assert page.find_element(By.CSS_SELECTOR, 'input[value="alone"]').is_selected()
    display = "return getComputedStyle(document.querySelector('.current .outline')).display"
    assert page.execute_script(display) != "none"
    page.find_element(By.ID, "outline").click()
    assert page.execute_script(display) == "none"


def test_a_link_opens_its_case(page, report):
    page.get(f"{report.as_uri()}#case-4")
    assert current(page) == "case-4"


def test_light_and_dark_follow_the_system_and_the_button(page, report):
    def paper() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    def system(value: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": value}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    system("light")
    light = paper()
    system("dark")
    dark = paper()
    assert light != dark
    page.find_element(By.ID, "theme").click()
    assert paper() == light
    system("light")
    page.find_element(By.ID, "theme").click()
    assert paper() == dark


@pytest.mark.parametrize(
    "changes",
    [{}, {"models": ("m" * 120, "n" * 120, "<o>"), "classes": ("c" * 120, "d e")}],
    ids=["usual", "long names"],
)
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_no_width_makes_the_page_scroll_sideways(page, tmp_path, width, changes):
    page.get(write_report(make_results(cases=2, **changes), tmp_path / "r.html").as_uri())
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("models", [("standard", "pgd-l2"), ("M" * 40, "W" * 40, "c")])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_words_of_the_figure_are_cut_off(page, tmp_path, width, models):
    page.get(write_report(make_results(models, cases=1), tmp_path / "r.html").as_uri())
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    (chart,) = shown(page, ".chart")
    outside = page.execute_script(
        "const svg = arguments[0], w = svg.viewBox.baseVal.width, h = svg.viewBox.baseVal.height;"
        "return [...svg.querySelectorAll('text')].filter((t) => { const b = t.getBBox();"
        " return b.x < -1 || b.y < -1 || b.x + b.width > w + 1 || b.y + b.height > h + 1; })"
        ".map((t) => t.textContent)",
        chart,
    )
    assert outside == []


def test_in_print_every_case_that_fits_is_shown_on_white(page):
    page.find_element(By.ID, "theme").click()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shown(page, "article.case")) == 6
    assert not shown(page, ".controls")
    assert not shown(page, "#theme")
    white = "return getComputedStyle(document.body).backgroundColor"
    assert page.execute_script(white) == "rgb(255, 255, 255)"
    pdf = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_every_case_stands_on_the_page(page, report):
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.get(report.as_uri())
    assert len(shown(page, "article.case")) == 6
    assert len(shown(page, "article.case figure")) == 6 * 9
    assert not shown(page, ".controls")
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_focus_goes_through_the_controls_in_reading_order(page):
    seen = []
    for _ in range(24):
        page.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(page.switch_to.active_element.get_attribute("id") or "")
    wanted = ["theme", "filter-class", "filter-status", "eps", "outline"]
    assert [s for s in seen if s in wanted] == wanted
