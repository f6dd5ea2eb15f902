"""The card of each model, what was not measured, and what repeats the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diascope.audit.parts import Interface
from diascope.audit.results import ModelResult, Results
from diascope.report import numbers as n

Pairs = list[tuple[str, Any]]

STAGES = {
    "curve": "accuracy under attack",
    "attacks": "each attack by itself",
    "masking": "whether the attack figures can be believed",
    "corruptions": "everyday corruptions",
    "calibration": "calibration",
    "operating": "the operating point",
    "confusion": "which class is called which",
    "group_scores": "accuracy by group",
    "elsewhere": "images of other hospitals",
    "maps": "maps",
    "localisation": "maps on the lesion",
}


@dataclass(frozen=True)
class Missing:
    """Something that was not measured, of which models, and why."""

    what: str
    state: str
    reason: str
    models: list[str]


def missing(results: Results) -> list[Missing]:
    """Return what was not measured and why, models with the same reason together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for stage in results.stages:
        if stage.state != "done":
            found.setdefault((stage.stage, stage.state, stage.reason), []).append(stage.model)
    return [
        Missing(STAGES.get(name, name.replace("_", " ")), state, reason, list(dict.fromkeys(who)))
        for (name, state, reason), who in found.items()
    ]


def model_card(model: ModelResult) -> Pairs:
    """Return what is known of a model, in the order in which one asks."""
    pairs: Pairs = [("architecture", model.architecture), ("parameters", f"{model.parameters:,}")]
    if model.interface is not None:
        pairs += _interface(model.interface)
    if model.queries:
        pairs.append(("asked about", f"{model.queries:,} images in all"))
    for key, value in model.objective.items():
        pairs.append(("objective" if key == "name" else key.replace("_", " "), value))
    if not model.objective:
        pairs.append(("objective", "not known: the model does not say how it was trained"))
    return pairs


def _interface(found: Interface) -> Pairs:
    kinds = {"run": "a run folder of Diascope", "timm": "a timm model", "onnx": "an ONNX file"}
    return [
        ("opened as", kinds.get(found.kind, found.kind)),
        ("input", f"{found.channels} × {found.size} × {found.size}, {found.input}"),
        ("this was", "declared" if found.declared else "found by a probe"),
        ("returns", found.outputs),
        ("gradients", "yes" if found.gradients else "no: a black box"),
    ]


def method(results: Results) -> list[tuple[str, Pairs]]:
    """Return what is needed to repeat the audit, in groups of (name, value)."""
    data = {k: v for k, v in results.data.items() if k not in ("counts", "chance", "majority")}
    epsilons = ", ".join(n.eps_text(e, results.norm) for e in results.epsilons)
    attack = {**results.attack, "norm": n.norm_text(results.norm), "epsilons": epsilons}
    if results.reference_eps > 0:
        attack["where one eps must do"] = n.eps_text(results.reference_eps, results.norm)
    run = {
        "command": results.command,
        "budget": results.budget,
        "seed": results.seed,
        "created": results.created,
        "time taken": n.duration(results.seconds),
        "diascope": results.version,
        "results schema": results.schema,
    }
    groups: dict[str, Mapping[str, Any]] = {
        "Run": run,
        "Data": data,
        "Attack": attack,
        "Explanation": results.explainer,
        "Effort": results.effort,
        "Hardware": results.hardware,
        "Tables, a row an image": results.tables,
        "All settings": results.settings,
    }
    return [(name, list(values.items())) for name, values in groups.items() if values]


def times(results: Results) -> list[tuple[str, list[str]]]:
    """Return how long each stage took, a row a stage and a column a model."""
    names = list(dict.fromkeys(s.stage for s in results.stages if s.seconds > 0))
    at = {(s.model, s.stage): s.seconds for s in results.stages}
    return [
        (
            STAGES.get(name, name.replace("_", " ")),
            [
                n.duration(at[m.name, name]) if (m.name, name) in at else n.DASH
                for m in results.models
            ],
        )
        for name in names
    ]
