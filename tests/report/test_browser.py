"""The report as a reader meets it: in headless Chromium, with the network cut off."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.browser import shown, visit
from tests.report.factory import make_results

from diascope.report import write_report
from diascope.report.html import TITLES

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

Driver = Any


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_results(cases=6), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(clean: Driver, report: Path) -> Driver:
    visit(clean, report.as_uri(), ".current [data-at] figcaption")
    return clean


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
    assert len(loaded) == 6 * (1 + 2 * (3 + 3 * 4))  # maps of three methods


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
    model = Select(page.find_element(By.ID, "filter-model"))
    status.select_by_value("broken")
    model.select_by_visible_text("standard")
    assert len(shown(page, ".thumbs button")) == 2
    model.select_by_visible_text("pgd-l2")
    assert shown(page, "article.case") == []
    assert page.find_element(By.ID, "nothing").is_displayed()
    model.select_by_visible_text("any model")
    assert len(shown(page, ".thumbs button")) == 2
    page.find_element(By.ID, "eps").send_keys(Keys.HOME)
    assert shown(page, ".thumbs button") == []  # at the smallest epsilon nothing is broken
    page.find_element(By.ID, "clear").click()
    assert len(shown(page, ".thumbs button")) == 6


def test_the_map_can_stand_alone_and_the_outline_be_taken_away(page):
    assert shown(page, "article.case .base")
    press(page, "m")
    assert not shown(page, "article.case .base")
    assert page.find_element(By.CSS_SELECTOR, 'input[value="alone"]').is_selected()
    display = "return getComputedStyle(document.querySelector('.current .outline')).display"
    assert page.execute_script(display) != "none"
    page.find_element(By.ID, "outline").click()
    assert page.execute_script(display) == "none"


def test_the_method_of_the_map_is_chosen_by_menu_and_by_key(page):
    def method() -> str:
        (caption, _) = shown(page, ".current [data-way] figcaption")
        return caption.text.splitlines()[0]

    assert method() == "Map, no attack, gradient"
    Select(page.find_element(By.ID, "method-of")).select_by_visible_text("gradcam")
    assert method() == "Map, no attack, gradcam"
    page.execute_script("document.activeElement.blur()")
    press(page, "n")
    assert method() == "Map, no attack, gradient"


def test_a_link_opens_its_case_its_epsilon_and_its_method_and_follows_the_reader(page, report):
    page.get(f"{report.as_uri()}#case-4")
    WebDriverWait(page, 30).until(lambda driver: current(driver) == "case-4")
    visit(page, f"{report.as_uri()}#case-5&eps=0.25&map=gradcam", "article.current")
    assert current(page) == "case-5"
    assert page.find_element(By.ID, "eps-now").text == "0.25"
    assert shown(page, ".current figcaption")[1].text.startswith("Map, no attack, gradcam")
    press(page, Keys.ARROW_RIGHT, "+")
    assert page.current_url.endswith("#case-6&eps=0.5&map=gradcam")


def test_help_opens_and_closes_by_key_and_the_keys_beneath_it_rest(page):
    press(page, "?")
    assert page.find_element(By.ID, "help").is_displayed()
    assert "the next explanation method" in page.find_element(By.ID, "help").text
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert current(page) == "case-1"
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.find_element(By.ID, "help").is_displayed()
    page.find_element(By.ID, "ask").click()
    assert page.find_element(By.ID, "help").is_displayed()


def test_findings_are_counted_first_and_filtered_by_model(page):
    counts = [e.text for e in shown(page, ".counts a")]
    assert counts == ["1 high", "1 low", "1 note"]
    assert len(shown(page, ".finding")) == 3
    Select(page.find_element(By.ID, "finding-model")).select_by_visible_text("pgd-l2")
    titles = [e.text for e in shown(page, ".finding h3")]
    assert titles == ["The maps find the lesion worse than a blob", "Maps were made of logits"]
    Select(page.find_element(By.ID, "finding-model")).select_by_visible_text("standard")
    assert len(shown(page, ".finding")) == 3


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
    [
        {},
        {"models": ("m" * 120, "n" * 120, "<o>"), "classes": ("c" * 120, "d e")},
        {"models": tuple(f"model {k}" for k in range(6))},
    ],
    ids=["usual", "long names", "six models"],
)
def test_no_width_makes_the_page_scroll_sideways(page, tmp_path, changes):
    path = write_report(make_results(cases=1, **changes), tmp_path / "r.html")
    visit(page, path.as_uri(), "article.current")
    found = {}
    for width in (360, 800, 1280):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        found[width] = page.execute_script("return document.documentElement.scrollWidth")
    assert all(needed <= width for width, needed in found.items()), found


@pytest.mark.parametrize("models", [("standard", "pgd-l2"), ("M" * 40, "W" * 40, "c")])
def test_no_words_of_the_figures_are_cut_off(page, tmp_path, models):
    path = write_report(make_results(models, cases=1), tmp_path / "r.html")
    visit(page, path.as_uri(), "article.current")
    for width in (390, 1280):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        charts = shown(page, ".chart")
        assert len(charts) == 1 + 3 * len(models)  # attacks, reliability clean and attacked
        outside = page.execute_script(
            "return arguments[0].flatMap((svg) => {"
            "const w = svg.viewBox.baseVal.width, h = svg.viewBox.baseVal.height;"
            "return [...svg.querySelectorAll('text')].filter((t) => { const b = t.getBBox();"
            " return b.x < -1 || b.y < -1 || b.x + b.width > w + 1 || b.y + b.height > h + 1; })"
            ".map((t) => t.textContent) })",
            charts,
        )
        assert outside == []


def test_in_print_every_case_that_fits_is_shown_on_white(page):
    page.find_element(By.ID, "theme").click()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shown(page, "article.case")) == 6
    assert not shown(page, ".controls")
    assert not shown(page, "#theme")
    assert not shown(page, "#filter-class")
    assert len(shown(page, "#rows tbody tr")) == 25
    assert {e.get_attribute("id") for e in shown(page, "main > section")} == set(TITLES)
    white = "return getComputedStyle(document.body).backgroundColor"
    assert page.execute_script(white) == "rgb(255, 255, 255)"
    pdf = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_every_case_stands_on_the_page(page, report):
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    visit(page, report.as_uri(), "article.case")
    assert len(shown(page, "article.case")) == 6
    assert len(shown(page, "article.case figure")) == 6 * 9
    assert not shown(page, ".controls")
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_focus_goes_through_the_controls_in_reading_order(page):
    wanted = ["theme", "ask", "finding-model", "filter-class", "filter-status", "filter-model"]
    wanted += ["filter-name", "clear", "eps", "method-of", "outline", "previous", "next"]
    seen = page.execute_script(
        "return [...document.querySelectorAll('a, button, input, select, summary, [tabindex]')]"
        ".filter((e) => e.checkVisibility() && e.tabIndex >= 0)"
        ".map((e) => [e.id, e.tabIndex])"
    )
    assert {place for _, place in seen} == {0}  # so that focus goes as the page reads
    assert [name for name, _ in seen if name in wanted] == wanted
    names = []
    for _ in range(3):
        page.switch_to.active_element.send_keys(Keys.TAB)
        names.append(page.switch_to.active_element.get_attribute("id"))
    assert names[1:] == ["theme", "ask"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_on_shaded_cells_can_be_read(page, theme):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    worst = page.execute_script(
        "const paint = document.createElement('canvas').getContext('2d');"
        "const shade = (...colours) => { for (const c of colours) {"
        "  paint.fillStyle = c; paint.fillRect(0, 0, 1, 1); }"
        " return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => { v /= 255;"
        "  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })"
        "  .reduce((s, v, k) => s + v * [0.2126, 0.7152, 0.0722][k], 0); };"
        "const paper = getComputedStyle(document.body).backgroundColor;"
        "return Math.min(...[...document.querySelectorAll('td.shade')].map((cell) => {"
        " const style = getComputedStyle(cell);"
        " const a = shade(paper, style.backgroundColor), b = shade(style.color);"
        " return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }))"
    )
    assert worst >= 4.5  # WCAG AA
