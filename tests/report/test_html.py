from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from tests.report.factory import bare_results, make_results

from diascope.audit.results import Finding, Results
from diascope.report import pictures, plates, write_report
from diascope.report.findings import graded
from diascope.report.glance import differing, glance
from diascope.report.html import TITLES, render_report
from diascope.report.plates import browser

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "link", "img", "br", "wbr", "input"}


class Strict(HTMLParser):
    """Checks that tags nest, ids are unique and references point at something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        href = found.get("href") or ""
        self.references += [href[1:]] if href.startswith("#") else []
        self.references += (found.get("aria-labelledby") or "").split()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(results: Results) -> Strict:
    page = Strict()
    page.feed(render_report(results))
    page.close()
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    return page


CASES = {
    "two": {},
    "one": {"models": ("only",)},
    "nothing but the curve": {"parts": False},
    "one, nothing but the curve": {"parts": False, "models": ("only",)},
    "interrupted": {"complete": False},
    "three": {"models": ("a", "b", "c")},
    "seven": {"models": tuple("abcdefg")},
    "no masks": {"masks": False},
    "no findings": {"findings": False},
    "one class": {"classes": ("nevus",)},
    "grey": {"channels": 1},
    "no cases": {"cases": 0},
    "no epsilons": {"epsilons": ()},
    "one epsilon": {"epsilons": (1.0,)},
    "long names": {"models": ("m" * 300, "n" * 300), "classes": ("c" * 300, "d")},
    "hostile names": {"models": (HOSTILE, "b"), "classes": (HOSTILE, "b")},
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_audit_gives_a_sound_page(name):
    page = parsed(make_results(**CASES[name]))
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    levels = [int(h[1]) for h in headings]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_hostile_text_stays_text():
    results = make_results(models=(HOSTILE, "b"), classes=(HOSTILE, "nevus"), masks=True)
    results = replace(
        results,
        title=HOSTILE,
        command=HOSTILE,
        cases_rule=HOSTILE,
        findings=[Finding("c", "high", HOSTILE, HOSTILE, HOSTILE, HOSTILE)],
        data={**results.data, "name": HOSTILE, "sources": [HOSTILE]},
        cases=[replace(case, id=HOSTILE, source=HOSTILE) for case in results.cases],
    )
    page = parsed(results)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    state = re.search(r'id="state">(.*?)</script>', render_report(results), re.S).group(1)
    assert {case["label"] for case in json.loads(state)["cases"]} == {HOSTILE, "nevus"}


def test_the_page_asks_the_network_for_nothing():
    text = render_report(make_results())
    assert not re.search(r'(?:src|href|action|poster)="(?!#|data:)', text)
    assert not re.search(r"url\((?!#)|@import|@font-face|fetch\(|XMLHttp|https?://", text)
    assert "default-src 'none'" in text


def test_every_picture_has_words():
    page = parsed(make_results())
    for tag, attrs in page.tags:
        if tag == "svg" and attrs.get("aria-hidden") != "true":
            assert attrs.get("role") == "img"
            assert attrs.get("aria-label") or attrs.get("aria-labelledby")


def test_numbers_stand_with_their_intervals_and_dashes_with_a_reason():
    results = make_results()
    undefined = (math.nan, math.nan, math.nan)
    bare = replace(results.models[0], scores={**results.models[0].scores, "auroc": undefined})
    text = "".join(parsed(replace(results, models=[bare, results.models[1]])).text)
    assert re.search(r"0\.850\s+\[0\.81, 0\.89\]", text)
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_right_and_wrong_are_told_by_sign_and_word():
    text = " ".join("".join(parsed(make_results(cases=1)).text).split())
    assert "✗ wrong nevus" in text
    assert "✓ right melanoma" in text
    assert "not broken up to eps 2" in text
    assert "first broken at eps 0.5" in text


@pytest.mark.parametrize(
    ("minimal", "said"),
    [
        (math.inf, "not broken up to eps 2 on the curve; by the attack alone at 0.5"),
        (1.0, "first broken at eps 1 on the curve; by the attack alone at 0.5"),
        (0.5, "first broken at eps 0.5"),
    ],
)
def test_a_picture_broken_where_the_curve_stands_is_told_with_both(minimal, said):
    results = make_results(cases=1)
    (case,) = results.cases
    unlike = next(a for view in case.views for a in view.attacked if a.prediction != case.label)
    views = [
        replace(view, minimal_epsilon=minimal, attacked=[replace(unlike, eps=0.5)])
        for view in case.views
    ]
    page = parsed(replace(results, cases=[replace(case, views=views)]))
    text = " ".join("".join(page.text).split())
    assert said in text
    assert ("by the attack alone" in text) == (minimal > 0.5)


def test_findings_come_gravest_first():
    text = "".join(parsed(make_results()).text)
    titles = [f.title for f in sorted(make_results().findings, key=lambda f: f.severity)]
    assert titles[0] == "standard falls below chance at l2 eps 0.5"
    places = [text.index(t) for t in (titles[0], titles[2], titles[1])]
    assert places == sorted(places)


def test_a_model_without_attacked_pictures_and_limits_that_are_missing_do_no_harm():
    results = make_results(cases=2)
    case = results.cases[0]
    views = [replace(case.views[0], attacked=[], probability=math.nan), case.views[1]]
    changed = replace(results, cases=[replace(case, views=views), results.cases[1]])
    parsed(changed)
    state = browser(changed).state
    assert state[0]["attacked"][0] == [None, True]
    assert state[1]["attacked"][0] == [True, True]


def test_the_file_is_written_whole(tmp_path):
    path = write_report(make_results(cases=1), tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def once(encode, encoded):
    def encode_once(array, *how):
        key = (encode.__name__, id(array), *how)
        if key not in encoded:
            encoded[key] = encode(array, *how)
        return encoded[key]

    return encode_once


def test_48_cases_of_three_models_and_methods_and_10000_rows_stay_under_15_mb(
    tmp_path, monkeypatch
):
    results = make_results(
        models=("a", "b", "c"), cases=2, size=224, epsilons=(0.25, 0.5, 1.0), images=10_000
    )
    results = replace(results, cases=results.cases * 24)
    encoded: dict[tuple[object, ...], str] = {}  # each picture is encoded once, and stands 24 times
    for name in ("photograph", "heat_map", "perturbation"):
        monkeypatch.setattr(pictures, name, once(getattr(pictures, name), encoded))
    monkeypatch.setattr(pictures, "outline", once(pictures.outline, encoded))
    monkeypatch.setattr(plates, "alike", lambda a, b: 0.5)
    path = write_report(results, tmp_path / "report.html")
    assert 8_000_000 < path.stat().st_size < 15_000_000


def test_too_many_pictures_are_shrunk_and_that_is_said():
    results = make_results(cases=4, size=64)
    small = browser(results, budget=200_000)
    assert small.side < 64
    assert small.shrunk
    found = [c.image for c in small.cases]
    for view in (v for c in small.cases for v in c.views):
        found += [
            *view.maps,
            *(u for s in view.steps for u in (s.image, s.perturbation, s.heat)),
        ]
    assert sum(map(len, found)) <= 220_000
    assert not browser(results).shrunk


SECTIONS = ["masking", "everyday", "operating", "calibration", "elsewhere", "maps"]


def test_parts_that_were_not_measured_leave_no_section_and_no_link():
    ids = parsed(make_results()).ids
    assert set(SECTIONS) <= set(ids)
    bare = parsed(bare_results(masks=False, cases=0))
    assert not {*SECTIONS, "cases"} & set(bare.ids)
    assert {"summary", "findings", "robustness", "groups", "card", "method"} <= set(bare.ids)


def test_sections_stand_in_their_order_with_findings_second():
    page = parsed(make_results())
    links = [a["href"][1:] for tag, a in page.tags if tag == "a" and a.get("href", "")[0:1] == "#"]
    nav = list(TITLES)
    assert links[1 : 1 + len(nav)] == nav
    assert nav[:3] == ["summary", "findings", "robustness"]
    assert [i for i in page.ids if i in nav] == nav


def test_an_interrupted_audit_says_so_and_what_is_missing_and_why():
    text = render_report(make_results(complete=False))
    assert "This audit was interrupted." in text
    assert "This audit was interrupted." not in render_report(make_results())
    assert "no validation images are known, on which to choose a threshold" in text


def test_many_classes_give_the_commonest_confusions_instead_of_a_matrix():
    classes = tuple(f"class {k}" for k in range(20))
    text = "".join(parsed(make_results(models=("one",), classes=classes, cases=0)).text)
    assert "Called" in text
    assert "of 100" in text or re.search(r"\d+ of \d+", text)
    assert "the 24 lowest" not in text


def test_a_finding_is_shown_with_the_model_it_is_of_and_not_with_those_it_mentions():
    words = ("The maps of pgd-l2 differ from standard's", "e", "m", "r")
    findings = [
        Finding("maps", "low", *words, model="pgd-l2"),
        Finding("data", "low", "standard images of pgd-l2's kind", "e", "m", "r"),
    ]
    results = replace(make_results(cases=0), findings=findings)
    (grade,) = graded(results)
    assert [each.models for each in grade.findings] == [[1], []]


def test_models_are_compared_at_the_operating_point_and_under_corruptions():
    results = make_results(cases=0)
    text = " ".join("".join(parsed(results).text).split())
    assert "Paired differences each model at its own threshold" in text
    assert "+0.500 [+0.40, +0.60] +0.300 [+0.23, +0.37] 60 and 140" in text
    assert "Paired differences under each corruption" in text
    (differences,) = [differing(results, c) for c in results.comparisons]
    at = [figure.label for figure in glance(results)].index("Sensitivity")
    assert (differences[at].text, differences[at].under) == ("+0.500", "[+0.40, +0.60] attacked")
    bare = bare_results(cases=0)
    assert "Paired differences each model" not in "".join(parsed(bare).text)


def test_the_card_of_a_black_box_says_how_many_images_it_was_asked_about():
    results = make_results(cases=0)
    model, other = results.models
    asked = replace(results, models=[replace(model, queries=12345), other])
    text = " ".join("".join(parsed(asked).text).split())
    assert text.count("asked about12,345 images in all") == 1
    assert "images in all" not in "".join(parsed(results).text)
