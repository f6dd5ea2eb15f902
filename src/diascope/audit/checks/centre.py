"""Do the maps tell more than that lesions sit in the middle?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.results import Finding, Results


@CHECKS.register("centre")
def centre(results: Results) -> list[Finding]:
    """Find models whose maps localise worse than a centred Gaussian that sees no image."""
    found = []
    for model in results.models:
        measure = model.localisation.get("average_precision")
        if measure is None or not measure.above_centre[2] < 0:
            continue
        value, low, high = measure.above_centre
        worse_than_chance = measure.above_chance[2] < 0
        found.append(
            Finding(
                check="centre",
                severity="medium" if worse_than_chance else "low",
                title=f"The maps of {model.name} find the region worse than a blob in the middle",
                evidence=(
                    f"average precision {measure.value[0]:.3f}, of a centred Gaussian "
                    f"{measure.centre[0]:.3f}: difference {value:+.3f} [{low:+.3f}, {high:+.3f}]; "
                    f"chance {measure.chance[0]:.3f}"
                ),
                meaning=(
                    "These maps alone do not show that the model looks at the lesion: guessing "
                    "the middle would have found more of it."
                ),
                remedy=(
                    "Compare with other explanations and models before reading such maps, and "
                    "whether they change when the model's weights are drawn anew."
                ),
            )
        )
    return found
