"""The table of all images as a reader meets it, in headless Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.browser import visit
from tests.report.factory import make_results

from diascope.report import write_report

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

Driver = Any


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(make_results(cases=2, images=10_000), path)


@pytest.fixture
def page(clean: Driver, report: Path) -> Driver:
    visit(clean, report.as_uri(), "#rows tbody tr")
    return clean


def column(driver: Driver, place: int) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr')]"
        ".map((row) => row.cells[arguments[0]].textContent)",
        place,
    )


def position(driver: Driver) -> str:
    return driver.find_element(By.ID, "page-now").text


def click(driver: Driver, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def fill(driver: Driver, identity: str, text: str) -> None:
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input'))",
        identity,
        text,
    )


def test_every_image_is_in_the_table_a_hundred_a_page(page):
    assert position(page) == "1 to 100 of 10000"
    assert column(page, 1) == [f"phantom-{k:05d}.png" for k in range(100)]
    click(page, "#page-after")
    assert position(page) == "101 to 200 of 10000"
    assert column(page, 1)[0] == "phantom-00100.png"
    click(page, "#page-before")
    assert page.find_element(By.ID, "page-before").get_attribute("disabled")
    assert page.get_log("browser") == []


def test_the_heads_sort_both_ways_and_what_is_unknown_comes_last(page):
    click(page, '[data-key="l"][data-model="0"]')
    shown = [float(v) for v in column(page, 5)]
    assert shown == sorted(shown)
    assert shown[0] < 0.01
    click(page, '[data-key="l"][data-model="0"]')
    shown = [float(v) for v in column(page, 5)]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > 0.99
    head = page.find_element(By.CSS_SELECTOR, "#rows [aria-sort]")
    assert head.get_attribute("aria-sort") == "descending"
    click(page, '[data-key="e"][data-model="1"]')
    assert set(column(page, 7)) == {"wrong as is"}
    click(page, '[data-key="q"][data-model="0"]')
    assert all(text.startswith("✗ wrong") for text in column(page, 3))
    chances = [float(text.split()[-1]) for text in column(page, 3)]
    assert chances == sorted(chances, reverse=True)  # the surest errors first


def test_filters_by_class_error_epsilon_localisation_name_and_disagreement(page):
    fill(page, "filter-class", "1")
    assert position(page) == "1 to 100 of 3333 that fit, 10000 in all"
    assert set(column(page, 2)) == {"nevus"}
    fill(page, "filter-status", "wrong")
    fill(page, "filter-model", "1")
    assert all(text.startswith("✗ wrong") for text in column(page, 6))
    fill(page, "filter-status", "differ")
    pairs = zip(column(page, 3), column(page, 6), strict=True)
    assert all(a.split()[2] != b.split()[2] for a, b in pairs)
    click(page, "#clear")
    fill(page, "filter-model", "0")
    fill(page, "eps-from", "2")
    fill(page, "eps-to", "3")
    assert set(column(page, 4)) == {"0.5", "1"}
    fill(page, "eps-to", "")
    assert set(column(page, 4)) == {"0.5", "1", "2", "never"}
    fill(page, "map-from", "0.9")
    assert min(float(v) for v in column(page, 5)) >= 0.9
    click(page, "#clear")
    fill(page, "filter-name", "00123")
    assert column(page, 1) == ["phantom-00123.png"]
    fill(page, "filter-name", "nowhere")
    assert position(page) == "No image fits these filters; 10000 in all"
    click(page, "#clear")
    click(page, "#pictured")
    assert column(page, 0) == ["Case 1", "Case 2"]


def test_a_row_opens_its_pictures_and_one_model_can_be_shown_alone(page):
    page.execute_script("document.querySelectorAll('#rows tbody button')[1].click()")
    assert page.find_element(By.ID, "case-2").is_displayed()
    assert not page.find_element(By.ID, "case-1").is_displayed()
    assert "#case-2" in page.current_url
    before = len(page.find_elements(By.CSS_SELECTOR, "#rows tbody tr:first-child > *"))
    Select(page.find_element(By.ID, "shown-model")).select_by_visible_text("pgd-l2")
    after = len(page.find_elements(By.CSS_SELECTOR, "#rows tbody tr:first-child > *"))
    assert before - after == 3
    heads = page.find_elements(By.CSS_SELECTOR, "#rows thead tr:last-child th")
    assert sum(head.is_displayed() for head in heads) == after
