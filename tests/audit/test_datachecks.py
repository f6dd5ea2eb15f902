"""Every check of data has data that it finds fault with, and data that it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.audit.pictures import brighter, dataset_of, evidence_of, texture

from diascope.audit.checks import ORDER
from diascope.audit.datachecks import DATA_CHECKS, run_data_checks
from diascope.audit.datachecks.evidence import sides_of
from diascope.audit.datachecks.looking import look
from diascope.audit.datachecks.seen_images import SAME
from diascope.data import Dataset
from diascope.data.verify import Problem
from diascope.errors import UserError

COUNT = 60
PICTURES = [texture(k, side=48) for k in range(COUNT)]
GROUPS = [f"p{k}" for k in range(COUNT)]
LABELS = ["ab"[k % 2] for k in range(COUNT)]
SPLITS = [("train", "train", "val", "test")[k // 2 % 4] for k in range(COUNT)]


def plain(pictures=PICTURES, **columns) -> Dataset:
    """Different pictures of different patients, half of each class, in three splits."""
    given = {"label": LABELS, "group": GROUPS, "split": SPLITS, "source": ["x"] * COUNT}
    return dataset_of(pictures, **{**given, **columns})


def repeated(copy) -> list[np.ndarray]:
    """Pictures whose number 1 (train) is `copy` of number 6 (test), of the other class."""
    return [copy(PICTURES[6]) if k == 1 else image for k, image in enumerate(PICTURES)]


def unreadable():
    evidence = evidence_of(plain())
    looked = replace(evidence.looked, problems=(Problem("p3.png", "the file is empty"),))
    return replace(evidence, looked=looked)


def framed() -> list[np.ndarray]:
    """Pictures of class b with a bright line along their upper edge."""
    return [_framed(image) if k % 2 else image for k, image in enumerate(PICTURES)]


def _framed(image):
    image = image.copy()
    image[:3] = 250
    return image


FAULTS = {
    "unreadable": (unreadable, "high", 1),
    "groups": (lambda: evidence_of(plain(group=["p0", *GROUPS[:1], *GROUPS[2:]])), None, 0),
    "exact_duplicates": (lambda: evidence_of(plain(repeated(np.copy))), "medium", 2),
    "near_duplicates": (
        lambda: evidence_of(plain(repeated(lambda image: brighter(image, 1.2)))),
        "medium",
        2,
    ),
    "split_leakage": (lambda: evidence_of(plain(repeated(np.copy))), "high", 2),
    "shared_images": (
        lambda: evidence_of(plain(), dataset_of([texture(99), PICTURES[5]], "other")),
        "high",
        1,
    ),
    "duplicate_labels": (lambda: evidence_of(plain(repeated(np.copy))), "medium", 2),
    "imbalance": (
        lambda: evidence_of(
            plain(label=["b" if k in (0, 1, 4, 6, 12) else "a" for k in range(COUNT)])
        ),
        "low",
        5,
    ),
    "source_shortcut": (
        lambda: evidence_of(plain(source=["xy"[k % 2] for k in range(COUNT)])),
        "high",
        COUNT,
    ),
    "border_shortcut": (lambda: evidence_of(plain(framed())), "high", COUNT),
    "statistics_shortcut": (
        lambda: evidence_of(
            plain([brighter(p, 0.5) if k % 2 else p for k, p in enumerate(PICTURES)])
        ),
        "high",
        COUNT,
    ),
    "file_shortcut": (
        lambda: evidence_of(plain([p[:40] if k % 2 else p for k, p in enumerate(PICTURES)])),
        "high",
        COUNT,
    ),
    "parents": (
        lambda: evidence_of(replace(plain(), name="RSNA_pneumonia"), trained_on=("chestxray14",)),
        "high",
        0,
    ),
    "seen_images": (lambda: evidence_of(plain(), left_out={SAME: 7}), "medium", 7),
}


@pytest.fixture(scope="module")
def sound():
    return evidence_of(plain())


def test_every_check_is_tested():
    assert sorted(FAULTS) == DATA_CHECKS.names()


@pytest.mark.parametrize("name", DATA_CHECKS.names())
def test_a_check_finds_nothing_where_nothing_is_wrong(name, sound):
    assert [f for f in DATA_CHECKS[name](sound) if f.severity != "info"] == []


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "groups"])
def test_a_check_finds_what_it_is_for(name):
    make, severity, count = FAULTS[name]
    found = DATA_CHECKS[name](make())
    assert {finding.check for finding in found} == {name}
    first = min(found, key=lambda finding: ORDER.index(finding.severity))
    assert first.severity == severity
    assert first.count == count
    assert all((first.title, first.evidence, first.meaning, first.remedy))


def test_the_files_of_copies_are_named_together():
    found = {f.check: f for f in run_data_checks(evidence_of(plain(repeated(np.copy))))}
    for check in ("exact_duplicates", "split_leakage", "duplicate_labels"):
        assert found[check].files == (("p1.png", "p6.png"),)
    assert "test and train" in found["split_leakage"].evidence
    shared = FAULTS["shared_images"][0]()
    (finding,) = DATA_CHECKS["shared_images"](shared)
    assert finding.files == (("p5.png", "other: o1.png"),)


def test_findings_come_in_order_of_gravity():
    found = run_data_checks(evidence_of(plain(repeated(np.copy))))
    ranks = [ORDER.index(finding.severity) for finding in found]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 1


def test_divided_groups_repeated_groups_and_unknown_groups():
    groups = ["p6" if k == 1 else g for k, g in enumerate(GROUPS)]  # 1 is in train, 6 in test
    divided, shared = DATA_CHECKS["groups"](evidence_of(plain(group=groups)))
    assert divided.severity == "high"
    assert divided.files == (("p1.png", "p6.png"),)
    assert (shared.severity, shared.count) == ("info", 2)
    together = ["p0" if k == 1 else g for k, g in enumerate(GROUPS)]  # both in train
    (info,) = DATA_CHECKS["groups"](evidence_of(plain(group=together)))
    assert info.severity == "info"
    (unknown,) = DATA_CHECKS["groups"](evidence_of(plain(group=[""] * COUNT)))
    assert (unknown.severity, unknown.count) == ("low", COUNT)
    (partly,) = DATA_CHECKS["groups"](evidence_of(plain(group=["", *GROUPS[1:]])))
    assert partly.files == (("p0.png",),)


def test_copies_of_one_group_are_no_fault():
    groups = ["p6" if k == 1 else g for k, g in enumerate(GROUPS)]
    near = evidence_of(plain(repeated(lambda image: brighter(image, 1.2)), group=groups))
    (finding,) = DATA_CHECKS["near_duplicates"](near)
    assert finding.severity == "info"
    exact = evidence_of(plain(repeated(np.copy), group=groups))
    (finding,) = DATA_CHECKS["exact_duplicates"](exact)
    assert finding.severity == "low"


def test_a_class_that_a_split_lacks_is_found():
    splits = ["train" if k % 2 else "test" for k in range(COUNT)]
    found = DATA_CHECKS["imbalance"](evidence_of(plain(split=splits)))
    assert [f.evidence for f in found] == ["test has no 'b', train has no 'a'"]


def test_a_source_that_has_both_classes_is_no_shortcut():
    sources = ["xy"[k // 2 % 2] for k in range(COUNT)]
    assert DATA_CHECKS["source_shortcut"](evidence_of(plain(source=sources))) == []


def test_the_splits_of_a_file_stand_in_place_of_official_ones(tmp_path):
    dataset = plain()
    file = tmp_path / "split.csv"
    file.write_text("path,group,split\np0.png,,test\np1.png,,left-out\n")
    assert sides_of(dataset)[0] == "train"
    assert sides_of(dataset, file)[:3].tolist() == ["test", "", ""]
    file.write_text("path,split\nq.png,test\n")
    with pytest.raises(UserError, match="holds no image of pictures"):
        sides_of(dataset, file)
    file.write_text("path,side\nq.png,test\n")
    with pytest.raises(UserError, match="no column 'split'"):
        sides_of(dataset, file)


def test_looking_reads_every_image_once_and_names_what_it_cannot_use(tmp_path):
    reads = []

    class Counted:
        def image(self, path):
            reads.append(path)
            return PICTURES[len(path)]

        def mask(self, path):
            raise NotImplementedError

        def stamp(self, path):
            return path

    names = ["a" * k for k in range(1, 9)]
    columns = {"path": names, "label": ["a"] * 7 + ["?"]}
    looked = look(Dataset.of("counted", columns, ["a"], Counted()))
    assert sorted(reads) == names
    assert [problem.path for problem in looked.problems] == ["a" * 8]
    assert looked.read.all()
