"""A study's report as a reader meets it: in headless Chromium, on a desk and on a phone."""

from __future__ import annotations

import pytest
from tests.browser import visit
from tests.report.studyfactory import FIGURES, make_study

from diascope.report.study import write_study_report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    store, out = (tmp_path_factory.mktemp(name) for name in ("store", "out"))
    results = make_study(store, images=12)
    charts = {name: FIGURES[name] for name in ("figure-3", "table-1", "clean")}
    return write_study_report(
        make_study(store, images=12, study={**results.study, "figures": charts}), store, out
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_fits_the_screen_and_says_nothing_amiss(clean, page, width, dark):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    clean.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    clean.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    visit(clean, page.as_uri(), "h1")
    assert clean.get_log("browser") == []
    assert clean.execute_script("return document.documentElement.scrollWidth") <= width
    over = clean.execute_script(
        "return [...document.querySelectorAll('.claims tbody td, .claims tbody th')]"
        ".filter((cell) => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth + 1)"
        ".map((cell) => cell.textContent)"
    )
    assert over == []
    ground = clean.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 26)" if dark else "rgb(252, 252, 250)")
    clipped = clean.execute_script(
        "return [...document.querySelectorAll('svg.chart')].filter((svg) => {"
        " const box = svg.getBoundingClientRect();"
        " return [...svg.querySelectorAll('text')].some((t) => {"
        "  const at = t.getBoundingClientRect();"
        "  return at.left < box.left - 1 || at.right > box.right + 1; }); }).map((s) => s.id)"
    )
    assert clipped == []


def test_the_verdicts_are_explained_on_demand(clean, page):
    visit(clean, page.as_uri(), "h1")
    clean.find_element("id", "ask").click()
    told = clean.find_element("id", "help").text
    assert "under a masked gradient" in told
    assert "not testable here" in told
