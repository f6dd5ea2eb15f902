"""What the measures of maps say of some images: a number a measure, a row an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diascope.errors import UserError, nearest
from diascope.evaluation import MEASURES, localisation_table
from diascope.evaluation.measures import members
from diascope.explain import Explainer, completeness
from diascope.explain.base import Complete

ALWAYS = ("sharpness", "localisation", "colour", "agreement", "completeness")
ASKED = ("faithfulness",)  # costs many forward passes
FAMILIES = (*ALWAYS, *ASKED)
WITH_MASKS = ("localisation", "colour")

Row = dict[str, Any]


@dataclass(frozen=True)
class MapMeasures:
    """The families of measures to compute, each as its members are called.

    families: of `FAMILIES`; those that need masks are left out where there are none, agreement
    (with the first model's map by the same method) where there is one model, completeness where a
    method promises no sum. only: names of single measures, empty for every one of the families.
    """

    families: tuple[str, ...] = ALWAYS
    only: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Sequence[str]) -> MapMeasures:
        """Return the usual families and what `words` add: families, or names of measures.

        Raises `UserError` for a word that is neither.
        """
        families, only = list(ALWAYS), list[str]()
        known = {name: family for family in FAMILIES for name in members(family)}
        for word in words:
            if word not in known and word not in FAMILIES:
                hint = nearest(word, [*FAMILIES, *known])
                raise UserError(f"--measures {word}: no measure of maps; {hint}")
            if word in known and known[word] not in families:
                only.append(word)
        asked = {known.get(word, word) for word in words}
        whole = [family for family in ASKED if family in words]
        only = [name for name in only if known[name] not in whole]
        families += [family for family in ASKED if family in asked]
        return cls(tuple(families), tuple(only))

    def chosen(self, family: str) -> dict[str, Any]:
        """Return the measures of a family by name, those asked for where some are."""
        if family not in self.families:
            return {}
        found = members(family)
        some = {name: measure for name, measure in found.items() if name in self.only}
        return some or found

    def __call__(
        self,
        model: nn.Module,
        method: Explainer,
        x: Tensor,
        y: Tensor,
        heat: Tensor,
        inside: Tensor | None,
        *,
        raw: Tensor | None = None,
        other: Tensor | None = None,
        seed: int = 0,
        ids: Tensor | None = None,
    ) -> list[Row]:
        """Return of each image the measures by family: x (B, C, H, W), heat (B, H, W) rectified.

        inside: masks (B, H, W) bool; raw: the attributions behind heat; other: the maps to
        agree with. Localisation stands beside chance and the centre prior.
        """
        tables: dict[str, Mapping[str, Any]] = {
            "sharpness": {n: m(heat) for n, m in self.chosen("sharpness").items()},
            "faithfulness": {
                n: m(model, x, y, heat) for n, m in self.chosen("faithfulness").items()
            },
        }
        if inside is not None:
            found = self.chosen("localisation")
            tables["localisation"] = localisation_table(heat, inside, measures=found)
            tables["colour"] = {n: m(heat, x, inside) for n, m in self.chosen("colour").items()}
        if other is not None:
            tables["agreement"] = {n: m(heat, other) for n, m in self.chosen("agreement").items()}
        if "completeness" in self.families and isinstance(method, Complete):
            seeded = torch.Generator().manual_seed(seed)
            sums = completeness(method, model, x, y, generator=seeded, ids=ids, raw=raw)
            tables["completeness"] = vars(sums)
        return [
            {
                family: {name: float(column[i]) for name, column in table.items()}
                for family, table in tables.items()
                if table
            }
            for i in range(len(x))
        ]

    def described(self) -> Row:
        """Return of each measure its family, which way is better, and its limits."""
        return {
            name: {
                "family": family,
                "higher_is_better": MEASURES[name].higher_is_better,
                "limits": list(MEASURES[name].limits),
            }
            for family in self.families
            for name in self.chosen(family)
        }
