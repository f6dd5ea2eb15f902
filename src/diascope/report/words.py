"""The verdict in words, made from the numbers and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from diascope.audit.parts import Bounds, Localisation
from diascope.audit.results import Comparison, ModelResult, Results
from diascope.report import numbers as n
from diascope.report.answers import belief, detection, elsewhere, everyday
from diascope.report.glance import reference, reference_text
from diascope.report.tables import pair

MANY = 3  # with more models than this the first screen names the ends only


@dataclass(frozen=True)
class Said:
    """A question and its answer; `href`: the section that tells more."""

    question: str
    answer: str
    href: str


def verdict(results: Results) -> list[Said]:
    """Return plain answers: skill, fragility, belief, detection, everyday, elsewhere, maps.

    Where models are compared, each of the first two says whether the interval of the paired
    difference holds zero.
    """
    alone = len(results.models) == 1
    answers = [
        ("How good is it?" if alone else "How good are they?", _skill(results), "#robustness"),
        ("How fragile?", _fragility(results), "#robustness"),
        ("Can that be believed?", belief(results), "#masking"),
    ]
    if alone:  # of several models the table beneath says it
        answers += [
            ("Does it still detect?", detection(results), "#operating"),
            ("Everyday images?", everyday(results), "#everyday"),
            ("In another hospital?", elsewhere(results), "#elsewhere"),
        ]
    looks = "Where does it look?" if alone else "Where do they look?"
    answers.append((looks, _looks(results), "#maps"))
    return [Said(*each) for each in answers if each[1]]


def _skill(results: Results) -> str:
    majority = results.data.get("majority")
    values = [m.scores.get("accuracy") for m in results.models]
    paired = [(c, c.scores.get("accuracy")) for c in results.comparisons]
    text = f"Without an attack, accuracy is {_values(results, values)}{_paired(paired)}."
    weak = [
        m.name
        for m, bounds in zip(results.models, values, strict=True)
        if n.defined(majority) and not _above(bounds, majority)
    ]
    if weak:
        are = "are" if len(weak) > 1 else "is"
        text += f" {n.listed(weak)} {are} not shown to do better than always naming the "
        text += f"commonest class, which would score {n.number(majority)}."
    return text


def _fragility(results: Results) -> str:
    place = reference(results)
    if place is None:
        return ""
    values = [m.curve[place] if place < len(m.curve) else None for m in results.models]
    if not any(b is not None and n.defined(b[0]) for b in values):
        return ""
    alike = [c for c in results.comparisons if attacked_alike(results, c)]
    paired = [(c, c.curve[place] if place < len(c.curve) else None) for c in alike]
    told = _values(results, values, results.data.get("chance"))
    text = f"Under attack ({reference_text(results)}) it is {told}{_paired(paired)}"
    if not curve_images(results):
        return f"{text}.{upper_bounds(results)}"
    before = [n.number(m.curve[0][0], 2) for m in results.models if m.curve]
    few = n.listed(sorted({f"{m.attacked:,}" for m in results.models if m.attacked}))
    clean = f", on which it is {n.listed(before)} without an attack"
    without = clean if len(before) <= MANY else ""
    return f"{text}, on {few} images drawn by lot{without}.{upper_bounds(results)}"


def attacked_alike(results: Results, comparison: Comparison) -> bool:
    """Tell whether the attacks were given as much of one model of a comparison as of the other."""
    both = (comparison.model, comparison.reference)
    return len({model.access for model in results.models if model.name in both}) < 2


def upper_bounds(results: Results) -> str:
    """Return a sentence on the black boxes, which attacks had to do without gradients."""
    text = ""
    for access in ("scores", "labels"):
        names = [m.name for m in results.models if m.access == access]
        if names:
            those = f"The figure of {n.listed(names)}" if len(results.models) > 1 else "This"
            text += f" {those} is an upper bound, of an attack that was shown {access} alone: "
            text += "whoever has the weights can do more"
            text += ", so that it stands beside no other." if len(results.models) > 1 else "."
    return text


def _values(results: Results, values: list[Bounds | None], chance: float | None = None) -> str:
    """Return the value of each model; the interval where there is but one."""
    told = []
    alone = len(results.models) == 1
    if len(results.models) > MANY:
        pairs = zip(results.models, values, strict=True)
        known = sorted((b[0], m.name) for m, b in pairs if b is not None and n.defined(b[0]))
        ends = [f"{n.number(value)} ({name})" for value, name in known[:: max(len(known) - 1, 1)]]
        return "from " + " to ".join(ends) if ends else n.DASH
    for model, bounds in zip(results.models, values, strict=True):
        words = n.ranged(bounds) if alone else f"{n.value_of(bounds)} for {model.name}"
        if n.defined(chance) and bounds and n.has_limits(bounds) and bounds[2] < (chance or 0):
            words += " (below chance)"
        told.append(words)
    return n.listed(told)


def _paired(pairs: list[tuple[Comparison, Bounds | None]]) -> str:
    """Return, of each comparison, whether the interval of the difference holds zero."""
    told = []
    if len(pairs) >= MANY:
        apart = [c.model for c, bounds in pairs if n.excludes_zero(bounds)]
        first = pairs[0][0].reference
        if not apart:
            return f"; none is told apart from {first}"
        return f"; told apart from {first}: {n.listed(apart)}"
    for comparison, bounds in pairs:
        if bounds is None or not n.has_limits(bounds):
            words = " could not be given"
        else:
            verb = "excludes" if n.excludes_zero(bounds) else "includes"
            words = f", {n.interval(bounds, True)}, {verb} zero"
        name = f" {pair(comparison)}" if len(pairs) > 1 else ""
        told.append(f"the interval of the difference{name}{words}")
    return f"; {n.listed(told)}" if told else ""


def _above(bounds: Bounds | None, level: float) -> bool:
    return bounds is not None and n.has_limits(bounds) and bounds[1] > level


def _looks(results: Results) -> str:
    """Return what the maps show: more than the centre prior, more than chance, or neither."""
    groups: dict[str, list[str]] = {}
    for model in results.models:
        found = model.localisation.get("average_precision")
        if found is not None:
            groups.setdefault(_look(found), []).append(model.name)
    if not groups:
        return ""
    alone = len(results.models) == 1
    told = [
        f"{'the maps' if alone else 'those of ' + n.listed(names)} {words}"
        for words, names in groups.items()
    ]
    text = "; ".join(told)
    return f"Held against the lesions, {text if alone else text.replace('those', 'the maps', 1)}."


def _look(found: Localisation) -> str:
    chance, centre = found.above_chance, found.above_centre
    if not (n.has_limits(chance) and n.has_limits(centre)):
        return "cannot be judged on so few images"
    if centre[1] > 0:
        return "do better than a Gaussian fixed in the middle, which sees no image"
    if centre[2] < 0:
        prior = "worse than a Gaussian fixed in the middle, which sees no image"
    else:
        prior = "not shown to do better than a Gaussian fixed in the middle"
    if chance[1] > 0:
        but = "but worse" if centre[2] < 0 else "but are not"
        return f"do better than chance, {but} {prior.split(' ', 1)[1]}"
    if chance[2] < 0:
        return f"do worse than chance, and {'' if centre[2] < 0 else 'are '}{prior}"
    return f"are not told apart from chance, and {'do ' if centre[2] < 0 else 'are '}{prior}"


def difference_statements(results: Results) -> list[str]:
    """Return, for each comparison, the epsilons at which its interval excludes zero."""
    return [_statement(results, c) for c in results.comparisons]


def _statement(results: Results, comparison: Comparison) -> str:
    if not attacked_alike(results, comparison):
        return (
            f"{comparison.model} and {comparison.reference} were not attacked alike: one gave no "
            "gradients. So nothing is said of how they differ under attack."
        )
    points = list(zip(results.epsilons, comparison.curve, strict=False))

    def at(eps: list[float]) -> str:
        return n.listed([n.eps_text(e, results.norm) for e in eps])

    higher = [e for e, b in points if n.has_limits(b) and b[1] > 0]
    lower = [e for e, b in points if n.has_limits(b) and b[2] < 0]
    unclear = [e for e, b in points if n.has_limits(b) and e not in higher and e not in lower]
    unknown = [e for e, b in points if not n.has_limits(b)]
    told = []
    if higher:
        told.append(f"is more accurate than {comparison.reference} at eps {at(higher)}")
    if lower:
        told.append(f"is less accurate than {comparison.reference} at eps {at(lower)}")
    sentence = ""
    if told:
        sentence = f"{comparison.model} {n.listed(told)}: there the interval excludes zero. "
    if unclear:
        sentence += (
            f"At eps {at(unclear)} the interval of the difference includes zero: these images do "
            f"not tell {comparison.model} and {comparison.reference} apart."
        )
    if unknown:
        sentence += f" At eps {at(unknown)} the interval of the difference could not be given."
    return sentence.strip()


def sizes(results: Results) -> str:
    """Return how many images of how many groups, at which size."""
    data = results.data
    images, groups, size = data.get("images"), data.get("groups"), data.get("size")
    text = _count(images or 0, "image", "images")
    if groups and groups != images:
        text += f" of {_count(groups, 'patient or lesion', 'patients or lesions')}"
    return text + (f", {size}×{size} pixels" if size else "")


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}".replace(",", "\u202f")


def curve_images(results: Results) -> str:
    """Return on how many images the curves were measured, where these are not all."""
    images, counts = results.data.get("images") or 0, {m.attacked for m in results.models}
    if counts <= {0, images}:
        return ""
    told = n.listed([f"{count:,}".replace(",", "\u202f") for count in sorted(counts)])
    return (
        f"Measured on {told} of the {_count(images, 'image', 'images')}, drawn by lot, each class "
        "by its share; still the accuracy at eps 0 may differ a little from that of all."
    )


def broken_at(model: ModelResult, norm: str) -> str:
    """Return the median of the minimal epsilons in words."""
    median = model.median_epsilon
    if n.defined(median):
        text = n.eps_text(median, norm)
        return text if median > 0 else f"{text}, for half are wrong without an attack"
    if median != float("inf"):
        return f"{n.DASH}, for it was not measured"
    return "beyond the largest eps: over half of the images were never broken"
