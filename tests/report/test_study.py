"""The report of a study: its page, its files, its words."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tests.report.studyfactory import FIGURES, RUNS, decision, make_claims, make_study
from tests.report.test_html import HOSTILE, Strict

from diascope.errors import UserError
from diascope.report.html import parted
from diascope.report.study import words, write_study_figure, write_study_report
from diascope.report.study.checks import masking_tables
from diascope.studies.results import ClaimResult, FailedCheck, StudyResults


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study's results, its store, and the folder its report was written to."""
    store, out = (tmp_path_factory.mktemp(name) for name in ("store", "out"))
    results = make_study(store)
    write_study_report(results, store, out)
    return results, store, out


def parsed(text: str) -> Strict:
    page = Strict()
    page.feed(text)
    page.close()
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    return page


def bare(results: StudyResults, store: Path, out: Path, **changes) -> Strict:
    """The page of a study without figures."""
    study = {**results.study, "figures": {}}
    path = write_study_report(replace(results, study=study, **changes), store, out)
    return parsed(path.read_text())


def test_the_page_is_sound_and_asks_the_network_for_nothing(written):
    text = (written[2] / "report.html").read_text()
    page = parsed(text)
    assert not re.search(r'(?:src|href|action|poster)="(?!#|data:)', text)
    assert not re.search(r"url\((?!#)|@import|@font-face|fetch\(|XMLHttp|https?://", text)
    assert "default-src 'none'" in text
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_table_has_heads_and_every_picture_has_words(written):
    page = parsed((written[2] / "report.html").read_text())
    for tag, attrs in page.tags:
        if tag == "svg" and attrs.get("aria-hidden") != "true":
            assert attrs.get("role") == "img"
            assert attrs.get("aria-label") or attrs.get("aria-labelledby")
        if tag == "th":
            assert attrs.get("scope") in ("col", "row", "rowgroup")
    count = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) == count


def test_every_verdict_stands_as_a_sign_and_in_words(written):
    text = " ".join("".join(parsed((written[2] / "report.html").read_text()).text).split())
    for verdict, sign in words.SIGNS.items():
        assert f"{sign}{verdict}" in text.replace("\n", ""), verdict
    assert (
        "Of 9 claims 1 is supported, 1 is refuted, 1 is undecided, 1 holds only under a weak "
        "attack, 1 holds only under a masked gradient, 1 is refuted only under a weak attack, 1 is "
        "refuted only under a masked gradient, 1 cannot be tested here and 1 was not run." in text
    )


def test_published_and_ours_stand_side_by_side_with_seeds_and_what_would_decide(written):
    text = " ".join("".join(parsed((written[2] / "report.html").read_text()).text).split())
    assert "ST 27.88; SGT k=.3 51.79" in text
    assert "+0.180 [+0.14, +0.22]" in text
    assert "seed 0: +0.160; seed 1: +0.180; seed 2: +0.200" in text
    assert words.FEW_SEEDS in text
    assert "about 4,200 images would decide it for these 3 models" in text
    assert "51.7 (27.88)" in text  # per cent, as the paper writes it


def test_five_seeds_are_not_called_few(tmp_path):
    seeds = (0, 1, 2, 3, 4)
    results = make_study(tmp_path / "store", seeds, images=12)
    page = bare(results, tmp_path / "store", tmp_path / "out", claims=make_claims(seeds))
    assert words.FEW_SEEDS not in "".join(page.text)


def test_a_line_under_every_figure_makes_it_anew(written):
    text = (written[2] / "report.html").read_text()
    for name in FIGURES:
        line = f"diascope study report studies/p4a.yaml --scale small --data DATA --figure {name}"
        assert f"<code>{line}</code>" in text
    assert "<code>diascope study report studies/p4a.yaml --scale small --data DATA</code>" in text


def test_figures_lie_beside_the_page_as_pictures_and_as_tables(written):
    files = {path.name for path in (written[2] / "figures").iterdir()}
    assert files == {
        "attacked-maps.png", "clean.csv", "clean.png", "figure-3.csv", "figure-3.png", "maps.png",
        "masked-share.csv", "masked-share.png", "table-1.csv",
    }  # fmt: skip
    table = pd.read_csv(written[2] / "figures" / "table-1.csv")
    first = table[(table.row == "standard") & (table.column == "FGSM .25")].iloc[0]
    frames = [
        pd.read_parquet(written[1] / "tables" / f"{key}.parquet")
        for key in written[0].tables["attacked"]["standard"].values()
    ]
    assert first.value == pytest.approx(pd.concat(frames)["fgsm@0.25"].mean())
    assert first["seed 1"] == pytest.approx(frames[1]["fgsm@0.25"].mean())
    assert first.low < first.value < first.high
    assert first.published == 27.88
    curve = pd.read_csv(written[2] / "figures" / "figure-3.csv")
    assert set(curve.part) == {"fgsm", "pgd", "strongest attack"}
    assert set(curve.column) == {0, 0.1, 0.2, 0.25}


def test_the_markdown_shows_pictures_and_tables(written):
    text = (written[2] / "results.md").read_text()
    assert "![Where they look](figures/maps.png)" in text
    cell = r"9\d\.\d \[\d+\.\d, \d+\.\d\], seeds \d+\.\d to \d+\.\d"
    assert re.search(rf"\| standard \| {cell} \| \d+\.\d \(27\.88\) ", text)


def test_one_figure_can_be_written_alone(written, tmp_path):
    results, store, _ = written
    found = write_study_figure(results, store, tmp_path, "table-1")
    assert found == [tmp_path / "figures" / "table-1.csv"]
    with pytest.raises(UserError, match="no figure 'table-2': did you mean 'table-1'"):
        write_study_figure(results, store, tmp_path, "table-2")


def test_the_numbers_for_machines_are_json_without_nan(written, tmp_path):
    found = json.loads((written[2] / "results.json").read_text())
    assert found["schema"] == "diascope-study-results-1"
    assert [claim["verdict"] for claim in found["claims"]][-1] == "not testable here"
    results = written[0]
    claim = replace(results.claims[1], decision=decision("undecided", math.nan, (0,)))
    page = bare(results, written[1], tmp_path, claims=[claim])
    assert json.loads((tmp_path / "results.json").read_text())["claims"][0]["decision"]
    assert not re.search(r"\b(nan|inf|None)\b", "".join(page.text))


def test_configurations_that_differ_in_the_seed_alone_are_shown_once(written):
    text = (written[2] / "report.html").read_text()
    for run in RUNS:
        labels = ", ".join(f"train {run}, seed {seed}" for seed in (0, 1, 2))
        assert f"<summary>{labels}</summary>" in text
    assert "record:" not in text


def test_masking_shows_the_gravest_of_the_seeds(written):
    (table,) = masking_tables(written[0])
    first = table.checks[0]
    assert first.outcomes == ["✓ passed", "✗ failed (seed 0 and 1 of 3)", "✓ passed"]
    assert dict(first.evidence)["sgt"].startswith("seed 0: FGSM 0.31, PGD 0.12; seed 1")


def test_hostile_text_stays_text(written, tmp_path):
    results, store, _ = written
    claim = ClaimResult(
        HOSTILE, HOSTILE, HOSTILE, "undecided", {HOSTILE: HOSTILE}, HOSTILE, HOSTILE, HOSTILE,
        decision("undecided", 0.1, (0,)), checked={HOSTILE: 0},
        failed=[FailedCheck(HOSTILE, HOSTILE, HOSTILE, [0], 1, "gradients", True, HOSTILE)],
    )  # fmt: skip
    study = {**results.study, "caveats": [HOSTILE], "about": HOSTILE, "figures": {}}
    hostile = replace(
        results, title=HOSTILE, source=HOSTILE, regenerate=HOSTILE, claims=[claim], study=study,
        jobs=[replace(results.jobs[0], label=HOSTILE, reason=HOSTILE)],
        masking={HOSTILE: {HOSTILE: {"0": [{"name": HOSTILE, "verdict": "failed"}]}}},
    )  # fmt: skip
    page = parsed(write_study_report(hostile, store, tmp_path).read_text())
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in page.tags) == 2


def test_an_empty_and_an_unfinished_study_have_pages(written, tmp_path):
    results, store, _ = written
    nothing = {"claims": [], "jobs": [], "tables": {}, "masking": {}, "complete": False}
    figures = {name: FIGURES[name] for name in ("masked-share", "table-1", "clean", "figure-3")}
    study = {**results.study, "untestable": {}, "caveats": [], "figures": figures}
    empty = replace(results, study=study, **nothing)
    page = parsed(write_study_report(empty, store, tmp_path).read_text())
    text = "".join(page.text)
    assert "This study is not complete." in text
    assert "This study makes no claim." in text
    assert not {"claims", "masking", "differs"} & set(page.ids)
    assert "not measured" in text


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, "This study makes no claim."),
        ({"supported": 1}, "The one claim is supported."),
        ({"refuted": 2}, "Both claims are refuted."),
        ({"not run": 3}, "All 3 claims were not run."),
        ({"supported": 2, "undecided": 1}, "Of 3 claims 2 are supported and 1 is undecided."),
    ],
)
def test_the_verdicts_at_a_glance(counts, told):
    assert words.sentence(counts) == told


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("ema/attacked.strongest@0.3265 > 0", "ema/|attacked.|strongest|@0.3265 &gt; 0"),
        ("clean.correct", "clean.|correct"),
        ("<b>/x", "&lt;b&gt;/|x"),
        ("p < 0.05", "p &lt; 0.05"),
    ],
)
def test_names_of_quantities_break_between_their_parts(name, lines):
    assert parted(name) == lines.replace("|", "<wbr>")
