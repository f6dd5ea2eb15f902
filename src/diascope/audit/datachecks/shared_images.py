"""Do datasets that are meant to be different hospitals share pictures?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("shared_images")
def shared_images(evidence: Evidence) -> list[Finding]:
    """Find images of the dataset that also are in a dataset beside it, exactly or nearly."""
    copies, where = evidence.copies, evidence.where
    of_pairs = where[copies.pairs]
    found = []
    for number, beside in enumerate(evidence.beside, start=1):
        among = (of_pairs[:, 0] == 0) & (of_pairs[:, 1] == number)
        if not among.any():
            continue
        own = len(set(copies.pairs[among, 0].tolist()))
        exact = int((among & copies.exact).sum())
        found.append(
            Finding(
                check="shared_images",
                severity="high",
                title=f"Images that are in {beside.dataset.name} too: {own}",
                evidence=(
                    f"{int(among.sum())} pairs, {exact} of them with the same pixels; {own} of "
                    f"{len(evidence.looked)} images here, "
                    f"{len(set(copies.pairs[among, 1].tolist()))} of {len(beside)} there"
                ),
                meaning=(
                    "The two are not different hospitals: a model trained on one is tested on its "
                    "own training images in the other."
                ),
                remedy="Leave the shared images out of one of the two before comparing.",
                count=own,
                files=evidence.files(copies.clusters(among)),
            )
        )
    return found
