"""Is one dataset known to be drawn from another?

Public datasets are made of one another. The table says which; `diascope data verify --beside`
looks for the pictures themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@dataclass(frozen=True)
class Kinship:
    """Images of `child` come from `parent`: in what words, and by which source."""

    child: str
    parent: str
    words: str
    source: str


NIH = "ChestX-ray14"
KINSHIPS = (
    Kinship(
        "rsnapneumonia",
        "chestxray14",
        f"all of the images of the RSNA pneumonia challenge come from {NIH}",
        "Shih et al. 2019, Radiology: Artificial Intelligence 1(1):e180041",
    ),
    Kinship(
        "siimacr",
        "chestxray14",
        f"the images of the SIIM-ACR pneumothorax challenge come from {NIH}",
        "Filice et al. 2020, Journal of Digital Imaging 33:490",
    ),
    Kinship(
        "covidradiography",
        "rsnapneumonia",
        "8,851 of its normal images come from the RSNA pneumonia challenge",
        "README of the COVID-19 Radiography Database",
    ),
    Kinship(
        "covidradiography",
        "chestxray14",
        f"8,851 of its normal images come from the RSNA challenge, and so from {NIH}",
        "README of the COVID-19 Radiography Database",
    ),
    Kinship(
        "covidradiography",
        "covidchestxray",
        "some of its COVID images come from the collection of Cohen et al.",
        "README of the COVID-19 Radiography Database",
    ),
    Kinship(
        "covidradiography",
        "pneumoniamnist",
        "1,341 of its normal images come from Kermany's paediatric set",
        "README of the COVID-19 Radiography Database",
    ),
    Kinship(
        "covidradiography",
        "siimcovid19",
        "2,473 of its COVID images come from BIMCV, as do images of SIIM-FISABIO-RSNA",
        "README of the COVID-19 Radiography Database; RSNA, May 2021, COVID-19 AI Detection "
        "Challenge",
    ),
    Kinship(
        "chestmnist",
        "chestxray14",
        f"ChestMNIST is {NIH} at a smaller size",
        "Yang et al. 2023, Scientific Data 10:41",
    ),
    Kinship(
        "dermamnist",
        "ham10000",
        "DermaMNIST is HAM10000 at a smaller size",
        "Yang et al. 2023, Scientific Data 10:41",
    ),
)


@DATA_CHECKS.register("parents")
def parents(evidence: Evidence) -> list[Finding]:
    """Find datasets that are known, by their names, to be made of one another."""
    name = evidence.dataset.name
    others = [*(each.dataset.name for each in evidence.beside), *evidence.trained_on]
    found = [
        _together(kin, name, other)
        for other in others
        for kin in KINSHIPS
        if _is(kin, name, other) or _is(kin, other, name)
    ]
    alone = [kin for kin in KINSHIPS if _key(name) in (kin.child, kin.parent)]
    met = {finding.evidence for finding in found}
    rest = [kin for kin in alone if f"{kin.words} ({kin.source})" not in met]
    return [*found, *([_warning(name, rest)] if rest else [])]


def _key(name: str) -> str:
    """Return a dataset's name without case, marks and working size."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"_\d+$", "", name.lower()))


def _is(kin: Kinship, child: str, parent: str) -> bool:
    return _key(child) == kin.child and _key(parent) == kin.parent


def _together(kin: Kinship, name: str, other: str) -> Finding:
    return Finding(
        check="parents",
        severity="high",
        title=f"{name} and {other} are known to share images",
        evidence=f"{kin.words} ({kin.source})",
        meaning="They are not two hospitals, and a test on one does not tell of the other.",
        remedy="Leave out what --beside finds in both, or take another dataset for the test.",
    )


def _warning(name: str, kin: list[Kinship]) -> Finding:
    return Finding(
        check="parents",
        severity="info",
        title=f"{name} is known to share images with other datasets",
        evidence="; ".join(f"{each.words} ({each.source})" for each in kin),
        meaning="Weights trained on one of them have seen images of the other.",
        remedy="Compare them with --beside before training on one and testing on the other.",
    )
