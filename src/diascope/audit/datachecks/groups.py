"""Do the images of one patient or lesion stay together?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("groups")
def groups(evidence: Evidence) -> list[Finding]:
    """Find groups in several splits, groups of several images, and data without groups."""
    table = evidence.dataset.table
    known = (table.group != "").to_numpy()
    if not known.any():
        return [_unknown(evidence)]
    named = pd.DataFrame({"group": table.group, "side": evidence.sides})[known]
    sizes = named.group.value_counts()
    found = _divided(evidence, named)
    if (several := sizes[sizes > 1]).size:
        found.append(_repeated(evidence, several))
    if not known.all():
        found.append(_partly(evidence, ~known))
    return found


def _divided(evidence: Evidence, named: pd.DataFrame) -> list[Finding]:
    placed = named[named.side != ""]
    sides = placed.groupby("group").side.nunique()
    divided = set(sides[sides > 1].index)
    if not divided:
        return []
    rows = placed.index[placed.group.isin(divided)]
    paths = evidence.dataset.table.path.to_numpy()
    members = placed.loc[rows].groupby("group").groups
    return [
        Finding(
            check="groups",
            severity="high",
            title=f"Groups that are divided between splits: {len(divided)}",
            evidence=f"{len(rows)} images of {len(divided)} patients or lesions stand on two sides",
            meaning="A model is tested on patients it was trained on: its scores are too high.",
            remedy="Split by group: 'diascope data split' keeps every group on one side.",
            count=len(rows),
            files=tuple(tuple(paths[list(each)]) for each in members.values()),
        )
    ]


def _repeated(evidence: Evidence, several: pd.Series[int]) -> Finding:
    table = evidence.dataset.table
    members = table.index[table.group.isin(several.index)]
    files = table.path[members].groupby(table.group[members]).agg(tuple)
    return Finding(
        check="groups",
        severity="info",
        title=f"Images that share their patient or lesion with another: {int(several.sum())}",
        evidence=(
            f"{several.size} of {table.group[table.group != ''].nunique()} groups have more than "
            f"one image, at most {int(several.max())}"
        ),
        meaning="Images of one group resemble each other: they are not independent evidence.",
        remedy="Keep groups whole in splits and intervals, as Diascope does; never split by image.",
        count=int(several.sum()),
        files=tuple(files),
    )


def _unknown(evidence: Evidence) -> Finding:
    return Finding(
        check="groups",
        severity="low",
        title="No patient or lesion is named",
        evidence=f"none of {len(evidence.dataset)} images has a group",
        meaning="Images of one patient may stand on both sides of a split, and nothing can tell.",
        remedy="Add a column 'group', or see that no patient has two images.",
        count=len(evidence.dataset),
    )


def _partly(evidence: Evidence, unknown: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Finding:
    count = int(unknown.sum())
    return Finding(
        check="groups",
        severity="low",
        title=f"Images that name no patient or lesion: {count}",
        evidence=f"{count} of {len(evidence.dataset)} images have no group; others have",
        meaning="Each is taken for a patient of its own, which it may not be.",
        remedy="Fill in the column 'group', or leave these images out of the test split.",
        count=count,
        files=evidence.paths(unknown),
    )
