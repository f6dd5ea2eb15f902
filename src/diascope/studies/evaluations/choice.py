"""Which of several models, such as of rising epsilons, shows the pathology of each image best?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.errors import UserError, gathered
from diascope.evaluation import compare_choices
from diascope.evaluation.measures import MEASURES
from diascope.explain import Explainer, explainers
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.explaining import (
    Of,
    check_regions,
    explained,
    heats,
    named,
    passes_of_all,
    passes_of_faithful,
    regions_of,
)
from diascope.studies.exam import Exam, Measured, Sample, known
from diascope.studies.study import NEXT

OWN = "this"
CHOSEN_BY, WORTH = "chosen by: ", "worth: "  # of parts that are finished
FAMILIES = ("sharpness", "faithfulness", "localisation")
REPLICATES = 1000
COLUMNS = ("per_image", "crossfitted", "best_single", "oracle", "own", "chosen", "best")

Values = dict[str, NDArray[np.float64]]
Pairs = dict[str, tuple[nn.Module, nn.Module]]  # by name: who is chosen by, and who is judged


@EVALUATIONS.register("choice")
@dataclass(frozen=True, kw_only=True)
class Choice:
    """Choose for each image among this model and those beside it, and judge the choice (P1.f).

    explainer: the maps that are judged, by the measure of localisation `judge`. by: what chooses:
    a measure that needs no mask, of sharpness ("gini", "entropy", ...) or faithfulness
    ("deletion", ...); or one of localisation, of the maps of another explainer, `by_explainer`,
    which tells whether the best model is a matter of the image or of one method's noise. of: the
    class that is explained, the same for every model. images: how many, None for all. foreground:
    as in `maps`. folds: of groups.

    Where models beside are "RUN@next", of the next training seed, as many as there are models to
    choose among, these explain what is judged: the choice is made on one training and judged on
    another, so that no training's chance is taken for the image's. The one without a partner
    beside is this model's.

    Columns, each the `judge` of one of the judged maps of the image: `per_image`, of the one
    chosen; `crossfitted`, of the model that is best on the other folds' groups; `best_single`, of
    the one that is best on these very images; `oracle`, of the image's best; `own`, of this model.
    `chosen` and `best` are the places of the chosen and of the image's best, this model's 0, those
    beside it from 1 in their order. NaN where it is not defined for every model.
    """

    explainer: dict[str, Any] | str = field(default="gradient", hash=False)
    by: str = "gini"
    by_explainer: dict[str, Any] | str | None = field(default=None, hash=False)
    judge: str = "average_precision"
    of: Of = "label"
    images: int | None = None
    foreground: float | None = None
    folds: int = 5

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 2:
            raise ValueError(f"images={self.images}: at least 2, or null for all")
        if self.folds < 2:
            raise ValueError(f"folds={self.folds}: at least 2")
        named((self.judge,), "localisation", "judge")
        if (family := MEASURES[self.by].family) not in FAMILIES:
            raise ValueError(f"by='{self.by}': a measure of {family}, not of {', '.join(FAMILIES)}")
        if family == "localisation" and self.by_explainer is None:
            raise ValueError(f"by='{self.by}' looks at the mask: name another by_explainer")
        _ = self.methods  # raises UserError for mistakes in them

    @cached_property
    def methods(self) -> dict[str, Explainer]:
        """The explainers that are judged and by which it is chosen."""
        settings = {"explainer": self.explainer}
        if self.by_explainer is not None:
            settings["by_explainer"] = self.by_explainer
        return {name: explainers.build(each, name) for name, each in settings.items()}

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        if not exam.beside:
            raise UserError("choice: there is no model to choose beside this one: name some")
        check_regions(exam, self.foreground)
        rows = exam.drawn(self.images)
        models = _paired(exam)
        self._check_sight(models)
        wanted: dict[str, list[NDArray[Any]]] = {name: [] for name in models}
        found: dict[str, list[NDArray[Any]]] = {name: [] for name in models}
        with gathered() as doubts:
            for some in exam.batches(rows):
                values = exam.kept(["choice", some.rows], partial(self._piece, exam, some, models))
                for name in models:
                    wanted[name].append(values[f"{CHOSEN_BY}{name}"])
                    found[name].append(values[f"{WORTH}{name}"])
        columns, about = self._compared(exam, rows, _whole(wanted), _whole(found))
        return Measured(columns, {**about, "doubts": doubts, "images": len(rows)})

    def _check_sight(self, models: Pairs) -> None:
        """Raise `UserError` where the mask would choose among the very maps that it judges."""
        seen = MEASURES[self.by].family == "localisation"
        same = len(set(map(repr, self.methods.values()))) == 1
        if seen and same and any(model is judge for model, judge in models.values()):
            raise UserError(
                f"choice: by='{self.by}' looks at the mask, of the same maps as are judged: name "
                "another by_explainer, or models of the next seed beside"
            )

    def _piece(self, exam: Exam, some: Sample, models: Pairs) -> dict[str, NDArray[np.float64]]:
        """Return of each model by what is chosen, and what its maps are worth, (n,) each."""
        target, values = explained(exam, some, self.of), dict[str, NDArray[np.float64]]()
        for name, pair in models.items():
            quality, judged = self._measured(exam, some, target, *pair)
            values[f"{CHOSEN_BY}{name}"], values[f"{WORTH}{name}"] = quality, judged
        return values

    def _measured(
        self, exam: Exam, some: Sample, target: Tensor, model: nn.Module, judge: nn.Module
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return by what is chosen, of a model's maps, and what the judge's is worth, (n,)."""
        methods = self.methods
        if model is judge:
            maps = list(heats(exam, methods, some, target, model=model).values())
            judged, looked = maps[0], maps[-1]
        else:
            first, last = dict([*methods.items()][:1]), dict([*methods.items()][-1:])
            [judged] = heats(exam, first, some, target, model=judge).values()
            [looked] = heats(exam, last, some, target, model=model).values()
        inside, measure = regions_of(some, self.foreground), MEASURES[self.by]()
        if measure.family == "faithfulness":
            quality = measure(model, some.x, target, looked, ids=some.ids)
            exam.tell(len(some.x) * passes_of_faithful({self.by: measure}))
        else:
            quality = measure(looked, *((inside,) if measure.family == "localisation" else ()))
        values = quality, MEASURES[self.judge]()(judged, inside)
        chosen_by, worth = (each.detach().to("cpu").double().numpy() for each in values)
        return chosen_by, worth

    def _compared(
        self, exam: Exam, rows: NDArray[np.int64], quality: Values, judged: Values
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """Return the columns, and what the choice came to."""
        try:
            choice = compare_choices(
                quality,
                judged,
                exam.pixels.dataset.groups[rows],
                higher_is_better=MEASURES[self.by].higher_is_better,
                folds=self.folds,
                seed=exam.seed,
                replicates=REPLICATES,
            )
        except ValueError as error:
            raise UserError(f"{exam.pixels.dataset.name}: {error}") from None
        found = np.stack([judged[name] for name in choice.epsilons])  # (E, n)
        there, place = choice.others_best >= 0, np.arange(len(rows))
        best = np.where(there, np.nan_to_num(found, nan=-np.inf).argmax(0), -1)
        places = {
            "per_image": choice.chosen,
            "crossfitted": choice.others_best,
            "best_single": np.full(len(rows), choice.epsilons.index(choice.best)),
            "oracle": best,
            "own": np.zeros(len(rows), np.int64),
        }
        values = {name: found[at, place] for name, at in places.items()}
        values |= {"chosen": choice.chosen.astype(np.float64), "best": best.astype(np.float64)}
        columns = {name: exam.blank() for name in COLUMNS}
        for name, column in columns.items():
            column[rows] = np.where(there, values[name], np.nan)
        counts = np.bincount(best[there], minlength=len(choice.epsilons))
        chosen = np.bincount(choice.chosen[there], minlength=len(choice.epsilons))
        about = {
            "explainers": {name: to_settings(method) for name, method in self.methods.items()},
            "models": list(choice.epsilons),
            "best_single": choice.best,
            "best_of_images": dict(zip(choice.epsilons, counts.tolist(), strict=True)),
            "chosen_of_images": dict(zip(choice.epsilons, chosen.tolist(), strict=True)),
            "ways": [
                {key: known(value) for key, value in way.items()}
                for way in choice.table.to_dict("records")
            ],
        }
        return columns, about

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes; see `Evaluation`."""
        each = passes_of_all({repr(method): method for method in self.methods.values()})
        measure = MEASURES[self.by]()
        if measure.family == "faithfulness":
            each += passes_of_faithful({self.by: measure})
        count = min(self.images or images, images)
        return count * ((1 + beside) * each + (self.of == "prediction"))

    def columns(self) -> list[str]:
        """Return the columns."""
        return list(COLUMNS)


def _paired(exam: Exam) -> Pairs:
    """Return the models to choose among by name, each with the model whose maps are judged.

    Raises `UserError` where models of the next seed are there, and not one for each.
    """
    models = {n: model for n, model in exam.beside.items() if not n.endswith(NEXT)}
    later = {n.removesuffix(NEXT): m for n, m in exam.beside.items() if n.endswith(NEXT)}
    if not later:
        return {name: (model, model) for name, model in {OWN: exam.model, **models}.items()}
    own = [name for name in later if name not in models]
    lack = [name for name in models if name not in later]
    if len(own) != 1 or lack or not models:
        raise UserError(
            f"choice: beside are {', '.join(exam.beside)}: name each model, this one too, of the "
            f"next seed ('RUN{NEXT}'), or none"
        )
    pairs = {OWN: (exam.model, later[own[0]])}
    return pairs | {name: (model, later[name]) for name, model in models.items()}


def _whole(parts: Mapping[str, Sequence[NDArray[Any]]]) -> Values:
    return {name: np.concatenate(each) for name, each in parts.items()}
