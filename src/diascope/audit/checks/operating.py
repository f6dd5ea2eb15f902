"""At the clinic's threshold: is enough found, does the threshold hold, and what turns it?"""

from __future__ import annotations

from collections.abc import Iterator

from diascope.audit.checks import CHECKS
from diascope.audit.checks.fragility import FAINT, HIDDEN, root_mean_square
from diascope.audit.parts import Bounds, Operating, OperatingPoint
from diascope.audit.results import Finding, ModelResult, Results


@CHECKS.register("operating")
def operating(results: Results) -> list[Finding]:
    """Find models that miss more at their threshold than is wanted, or do so once attacked."""
    found: list[Finding] = []
    for model in results.models:
        if model.operating is not None and model.operating.points:
            found += _missing(results, model, model.operating)
            found += _moved(model, model.operating)
            found += _turned(results, model, model.operating)
    return found


def _missing(results: Results, model: ModelResult, operating: Operating) -> Iterator[Finding]:
    """Find a sensitivity below the wanted one beyond doubt, where one is wanted."""
    clean, wanted = operating.points[0], float(results.settings.get("sensitivity", 0.9))
    if results.settings.get("threshold", "sensitivity") != "sensitivity":
        return
    if clean.eps > 0 or not clean.sensitivity[2] < wanted:
        return
    held_out = operating.validation
    promised = (
        f"on the validation images it was {held_out.sensitivity[0]:.3f}"
        if held_out is not None
        else "the threshold was chosen on no images"
    )
    yield Finding(
        check="operating",
        model=model.name,
        severity="high" if held_out is not None else "medium",
        title=f"{model.name} misses more {_named(operating)} than it may",
        evidence=(
            f"sensitivity {_bounds(clean.sensitivity)} at threshold {operating.threshold:.3g}, "
            f"{wanted:g} wanted; {promised}; {clean.missed} of {clean.positives} are called "
            f"negative, specificity {_bounds(clean.specificity)}"
        ),
        meaning=(
            "The threshold does not carry over to these images: it was right where it was chosen, "
            "and here it lets too many pass."
            if held_out is not None
            else "At this threshold the model lets too many pass; another may serve it better."
        ),
        remedy=(
            "Choose the threshold on images of the place where the model is to work, set apart "
            "from those of the test; look for what differs between the two."
            if held_out is not None
            else "Audit the run folder, whose split names validation images, or call images that "
            "the model was not trained on 'val' in the table's column split, beside 'test'; 0.5 "
            "has no claim on being it."
        ),
        count=clean.missed,
    )


def _moved(model: ModelResult, operating: Operating) -> Iterator[Finding]:
    """Find a specificity that fell between validation and test beyond doubt."""
    clean, held_out = operating.points[0], operating.validation
    if held_out is None or not clean.specificity[2] < held_out.specificity[1]:
        return
    yield Finding(
        check="operating",
        model=model.name,
        severity="medium",
        title=f"The threshold of {model.name} raises more false alarms than where it was chosen",
        evidence=(
            f"specificity {_bounds(clean.specificity)} at threshold {operating.threshold:.3g}, "
            f"{_bounds(held_out.specificity)} on the validation images; {clean.false_alarms} of "
            f"{clean.negatives} are called positive"
        ),
        meaning="The scores have moved: the threshold means something else on these images.",
        remedy=(
            "Compare how both sets were taken and prepared, and choose the threshold on images "
            "of the place where the model is to work."
        ),
        count=clean.false_alarms,
    )


def _turned(results: Results, model: ModelResult, operating: Operating) -> Iterator[Finding]:
    """Find the smallest faint attack under which a coin would find more."""
    clean = operating.unattacked
    for point in operating.points[1:]:
        change = root_mean_square(results, point.eps)
        lost = point.sensitivity[2] < min(0.5, clean.sensitivity[1])
        if not lost or change > FAINT:
            continue
        yield Finding(
            check="operating",
            model=model.name,
            severity="high" if change <= HIDDEN else "medium",
            title=(
                f"{model.name} calls most {_named(operating)} negative at {results.norm} eps "
                f"{point.eps:.3g}"
            ),
            evidence=(
                f"sensitivity {_bounds(point.sensitivity)} under an attack on the decision, "
                f"{clean.sensitivity[0]:.3f} without; specificity {_bounds(point.specificity)}, "
                f"{clean.specificity[0]:.3f} without; {_ways(point)}; a change of "
                f"{change * 255:.1f} grey levels in the root mean square"
            ),
            meaning=(
                "A change that nobody sees, or hardly, hides what the model is there to find: "
                "a coin would find more."
            ),
            remedy=(
                "Train adversarially at an epsilon near this one, and let no one change an image "
                "between the device and the model."
            ),
            count=point.missed,
        )
        return


def _ways(point: OperatingPoint) -> str:
    """Say which way the errors go."""
    missed, alarms = 1 - point.sensitivity[0], 1 - point.specificity[0]
    more = "mostly misses" if missed > 2 * alarms else "mostly false alarms"
    way = more if missed > 2 * alarms or alarms > 2 * missed else "both ways alike"
    return (
        f"errors go {way}: {point.missed} of {point.positives} missed, {point.false_alarms} of "
        f"{point.negatives} false alarms"
    )


def _named(operating: Operating) -> str:
    names = operating.positive
    return names[0] if len(names) == 1 else f"of {', '.join(names)}"


def _bounds(value: Bounds) -> str:
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"
