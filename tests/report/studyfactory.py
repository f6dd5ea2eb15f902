"""Plausible results of a study that never was, with tables to match, for tests of its report."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from diascope.evaluation.tables import write_table
from diascope.studies.results import (
    Bounds,
    ClaimResult,
    Decision,
    FailedCheck,
    JobResult,
    QuantityResult,
    StudyResults,
)

RUNS = ("standard", "sgt", "asgt")
EPSILONS = (0.1, 0.2, 0.25)
HARDWARE = {"cpu": "a processor", "threads": 2, "gpus": []}

FIGURES: dict[str, dict[str, Any]] = {
    "figure-3": {
        "kind": "curve",
        "title": "Accuracy under attack",
        "where": "P4, figure 3",
        "evaluation": "attacked",
        "published": {"standard": {"fgsm": {0.25: 27.88}}, "sgt": {"fgsm": {0.25: 51.79}}},
        "percent": True,
        "levels": {"chance 0.10": 0.1},
        "names": {"asgt": "ASGT, k = .3"},
    },
    "table-1": {
        "kind": "table",
        "title": "Clean and attacked accuracy",
        "where": "P4, table 1",
        "columns": {"clean": "{run}/attacked.correct", "FGSM .25": "{run}/attacked.fgsm@0.25"},
        "published": {"standard": {"FGSM .25": 27.88}, "sgt": {"FGSM .25": 51.79}},
        "percent": True,
    },
    "masked-share": {
        "kind": "line",
        "title": "Robust accuracy against k",
        "x": {"standard": 0, "sgt": 0.3, "asgt": 0.5},
        "x_title": "k",
        "y_title": "Accuracy at eps 0.2",
        "lines": {"FGSM": "{run}/attacked.fgsm@0.2", "PGD": "{run}/attacked.pgd@0.2"},
        "published": {"FGSM": {0.3: 0.58}},
        "levels": {"standard, clean": "standard/attacked.correct"},
    },
    "clean": {
        "kind": "bars",
        "title": "Accuracy",
        "panels": {
            "Without an attack": "{run}/attacked.correct",
            "PGD at 0.2": "{run}/attacked.pgd@0.2",
        },
        "published": {"standard": {"PGD at 0.2": 0.1636}, "sgt": {"PGD at 0.2": 0.4908}},
    },
    "maps": {
        "kind": "pictures",
        "title": "Where they look",
        "where": "P4, figure 6",
        "evaluation": "shown",
    },
    "attacked-maps": {
        "kind": "pictures",
        "title": "Under attack",
        "evaluation": "shown",
        "runs": ["standard", "asgt"],
        "attacked": True,
        "images": 2,
    },
}


def make_study(
    store: Path, seeds: tuple[int, ...] = (0, 1, 2), images: int = 80, **changes: Any
) -> StudyResults:
    """Results with every verdict, whose tables and configurations lie in `store`."""
    tables = _tables(store, seeds, images)
    runs = {run: {"base": "../configs/p4/mnist.yaml"} for run in RUNS}
    study = {
        "name": "p4a",
        "title": "Saliency-guided training under FGSM",
        "source": "P4, section 4.2",
        "about": "Does masking unimportant pixels in training help against a single-step attack?",
        "scale": "small",
        "seeds": list(seeds),
        "caveats": [
            "A quarter of the channels and 2,000 images an epoch.",
            "The paper names no training attack; ours is FGSM at eps 0.2.",
        ],
        "runs": runs,
        "evaluations": {
            "attacked": {"measure": {"name": "robust", "epsilons": EPSILONS}, "on": "test"},
            "shown": {"measure": "examples", "on": "test"},
        },
        "tests": {"test": {}},
        "figures": FIGURES,
        "untestable": {
            "imagenet": {
                "says": "An ImageNet ResNet does the same",
                "reason": "its weights are not to be had here",
                "published": {"ours": 0.8},
            }
        },
    }
    results = StudyResults(
        name="p4a",
        title=str(study["title"]),
        source=str(study["source"]),
        scale="small",
        study=study,
        claims=make_claims(seeds),
        jobs=_jobs(store, seeds, tables),
        tables={"attacked": tables},
        about={"shown": {run: {"0": {"pictures": _pictures(k)}} for k, run in enumerate(RUNS)}},
        masking={"attacked": {run: {str(s): _checks(run, s) for s in seeds} for run in RUNS}},
        regenerate="diascope study run studies/p4a.yaml --scale small --data DATA",
        created="2026-11-21T22:30:00+00:00",
        seconds=5234.0,
        hardware=["a processor, 2 threads"],
    )
    return replace(results, **changes)


def make_claims(seeds: tuple[int, ...] = (0, 1, 2)) -> list[ClaimResult]:
    """One claim of every verdict, one of them with a robust and a masked side."""
    published: dict[str, float | str] = {"ST": 27.88, "SGT k=.3": 51.79}
    held, against = decision("supported", 0.18, seeds), decision("refuted", -0.21, seeds)
    unclear = decision("undecided", 0.021, seeds, needed_images=4183, needed_seeds=11)
    return [
        ClaimResult(
            name="fgsm",
            says="Saliency-guided training gains accuracy under FGSM at eps 0.25",
            statement="sgt/attacked.fgsm@0.25 > standard/attacked.fgsm@0.25",
            verdict="under a masked gradient",
            published=published,
            where="4.2, figure 3",
            reason="on the strongest attack it is refuted",
            decision=held,
            strongest=decision("refuted", -0.05, seeds),
            checked={"sgt": len(seeds), "standard": len(seeds)},
            failed=[
                FailedCheck(
                    "sgt",
                    "attacked",
                    "iterative beats single-step",
                    list(seeds[:2]),
                    len(seeds),
                    "gradients",
                    True,
                    "FGSM 0.31, PGD 0.12",
                )
            ],
        ),
        ClaimResult(
            name="clean",
            says="ASGT is as accurate as standard training without an attack",
            statement="|asgt/attacked.correct - standard/attacked.correct| <= 0.02",
            verdict="supported",
            decision=held,
        ),
        ClaimResult(
            name="pgd",
            says="ASGT is best under PGD at eps 0.2",
            statement="asgt/attacked.pgd@0.2 > sgt/attacked.pgd@0.2",
            verdict="refuted",
            published={"ASGT": 55.69, "SGT": 49.08},
            decision=against,
            strongest=against,
            qualifications=["the attack had not converged: plateau failed in 2 of 3 seeds"],
        ),
        ClaimResult(
            name="few",
            says="ASGT is refuted to be best under few steps",
            statement="asgt/attacked.pgd@0.1 > sgt/attacked.pgd@0.1",
            where="ours: whether the gain is that of the scheme or that of what it costs",
            verdict="refuted under a weak attack",
            decision=against,
            strongest=unclear,
        ),
        ClaimResult(
            name="astray",
            says="Standard training is as good",
            statement="asgt/attacked.pgd@0.1 > standard/attacked.pgd@0.1",
            verdict="refuted under a masked gradient",
            decision=against,
            strongest=against,
        ),
        ClaimResult(
            name="maps",
            says="The maps of ASGT lie more on the digit",
            statement="asgt/maps.gradient.mass_inside > standard/maps.gradient.mass_inside",
            verdict="undecided",
            published={"figure 6": "qualitative"},
            instead_of="the paper's pictures by eye",
            decision=unclear,
        ),
        ClaimResult(
            name="weak",
            says="SGT with half of the features masked gains, too",
            statement="sgt/attacked.fgsm@0.2 > standard/attacked.fgsm@0.2",
            verdict="under a weak attack",
            reason="supported on fgsm@0.2, undecided on the strongest attack",
            decision=held,
            strongest=decision("undecided", 0.01, seeds),
            checked={"sgt": 0, "standard": len(seeds)},
        ),
        ClaimResult(
            name="late",
            says="More seeds would agree",
            statement="sgt/attacked.correct >= 0.9",
            verdict="not run",
            reason="sgt, seed 2 failed",
        ),
    ]


def decision(verdict: Any, effect: float, seeds: tuple[int, ...], **changes: Any) -> Decision:
    """A decision with an effect, an interval around it, and every seed near it."""
    by_seed = {s: effect + 0.02 * (k - 1) for k, s in enumerate(seeds)}
    quantities = [
        QuantityResult(
            name, around(value), {s: value + 0.01 * (k - 1) for k, s in enumerate(seeds)}, 80, 40
        )
        for name, value in (
            ("sgt/attacked.fgsm@0.25", 0.3 + effect),
            ("standard/attacked.fgsm@0.25", 0.3),
        )
    ]
    p = 0.4 if verdict == "undecided" else 0.0005
    given = {"thresholds": [0.0], "seeds_drawn": len(seeds) >= 5, **changes}
    return Decision(
        verdict, around(effect), by_seed, p, min(1.0, 5 * p), quantities, 80, 40, **given
    )


def around(value: float, half: float = 0.04) -> Bounds:
    """A value with an interval about it."""
    return Bounds(value, value - half, value + half)


def _tables(store: Path, seeds: tuple[int, ...], images: int) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for k, run in enumerate(RUNS):
        for seed in seeds:
            key = f"table{k}{seed:02d}"
            path = store / "tables" / f"{key}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(_table(k, seed, images), path, {"key": key})
            path.with_suffix(".json").write_text("{}")
            found.setdefault(run, {})[str(seed)] = key
    return found


def _table(k: int, seed: int, images: int) -> pd.DataFrame:
    rng = np.random.default_rng([k, seed])
    places = np.arange(images)
    correct = rng.random(images) < 0.95
    columns: dict[str, Any] = {
        "id": places,
        "path": [f"{i}.png" for i in places],
        "label": places % 2,
        "group": [f"g{i // 2}" for i in places],
        "source": ["here"] * images,
        "prediction": np.where(correct, places % 2, 1 - places % 2),
        "correct": correct,
    }
    for attack, loss in (("fgsm", 1.8), ("pgd", 2.6), ("strongest", 3.0)):
        strength = rng.random(images)
        for eps in EPSILONS:
            stands = correct & (strength > loss * eps * (1 - 0.25 * k))
            columns[f"{attack}@{eps:g}"] = stands.astype(float)
    return pd.DataFrame(columns)


def _pictures(k: int) -> list[dict[str, Any]]:
    """What the evaluation `examples` tells of three images of discs."""
    y, x = np.mgrid[:24, :24]
    found = []
    for i in range(3):
        disc = np.hypot(x - 8 - 4 * i, y - 12) < 6
        heat = np.exp(-np.hypot(x - 8 - 4 * i + 3 - k, y - 12) / (6 - 2 * k))
        entry = {
            "image": _png(disc * 120 + 60),
            "maps": {"gradient": _png(heat * 255), "gradcam": _png(255 - 10 * y)},
            "prediction": "disc" if i else "ring",
            "correct": bool(i),
        }
        hit = {**entry, "perturbation": _png(128 + 40 * np.sign(x - y)), "correct": False}
        more = {"mask": _png(disc * 255) if i < 2 else None, "attacked": hit}
        names = {"path": f"{i}.png", "label": "disc", "explained": "disc"}
        found.append({"id": i, **names, **entry, **more})
    return found


def _png(pixels: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _jobs(store: Path, seeds: tuple[int, ...], tables: Any) -> list[JobResult]:
    jobs = []
    for run in RUNS:
        for seed in seeds:
            key = f"run-{run}-{seed}"
            folder = store / "runs" / key
            folder.mkdir(parents=True, exist_ok=True)
            config = {
                "data": {"name": "mnist:{data}/mnist", "size": 28},
                "objective": {"name": run},
                "training": {"epochs": 3, "seed": seed},
                "record": {"git": "0"},
            }
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            label = f"train {run}, seed {seed}"
            jobs.append(JobResult(key, label, "train", "done", 512.0, hardware=HARDWARE))
            label = f"attacked of {run}, seed {seed}"
            key = tables[run][str(seed)]
            more: dict[str, Any] = {"images": 80, "left_out": {"not drawn": 9920}}
            jobs.append(JobResult(key, label, "examine", "there", 65.0, "", HARDWARE, **more))
    return [*jobs[:-1], replace(jobs[-1], state="failed", reason="out of memory")]


def _checks(run: str, seed: int) -> list[dict[str, Any]]:
    masked = run == "sgt" and seed < 2
    return [
        {
            "name": "iterative beats single-step",
            "question": "Do iterative attacks beat a single step?",
            "verdict": "failed" if masked else "passed",
            "evidence": f"FGSM {0.31 if masked else 0.12}, PGD 0.12",
        },
        {"name": "a plateau is reached", "verdict": "undecided", "evidence": "too few images"},
        {"name": "a stochastic forward is averaged", "verdict": "not applicable", "evidence": ""},
    ]
