"""Tables made up for tests of claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from diascope.studies.decide import decide_study
from diascope.studies.results import ClaimResult
from diascope.studies.study import Study


def table(groups: Any, **columns: Any) -> pd.DataFrame:
    """A table of N images in these groups; columns may be overwritten."""
    n = len(groups)
    given = {"id": np.arange(n), "label": "x", "group": groups, "correct": np.ones(n, bool)}
    return pd.DataFrame({**given, **{name.replace("_at_", "@"): c for name, c in columns.items()}})


def study(
    claims: Mapping[str, Mapping[str, Any]],
    runs: str = "ab",
    seeds: int = 1,
    evaluations: Mapping[str, str] | None = None,
    **more: Any,
) -> Study:
    """A study of runs named by a letter, with evaluations named with their tests."""
    on = evaluations or {"e": "t"}
    return Study(
        name="s",
        title="t",
        seeds=list(range(seeds)),
        runs={run: {} for run in runs},
        tests={test: {} for test in on.values()},
        evaluations={name: {"measure": "predictions", "on": test} for name, test in on.items()},
        claims={name: {"says": name, "test": test} for name, test in claims.items()},
        **more,
    )


def decided(
    test: Mapping[str, Any], frames: Mapping[str, Any], masking: Any = None, **more: Any
) -> ClaimResult:
    """The one claim, of frames by run, a frame or a list with one for each seed."""
    by_seed = {run: of if isinstance(of, list) else [of] for run, of in frames.items()}
    tables = {"e": {run: dict(enumerate(of)) for run, of in by_seed.items()}}
    seeds = max(len(of) for of in by_seed.values())
    made = study({"c": test}, "".join(frames), seeds)
    return decide_study(made, tables, masking, **{"replicates": 400, **more})[0]


GREATER = {"name": "greater", "a": "a/e.v", "b": "b/e.v"}
LONE = np.arange(40)  # each image a group of its own
NOISE = np.random.default_rng(0).normal(0, 0.1, 40)
NOISE = 0.1 * (NOISE - NOISE.mean()) / NOISE.std(ddof=1)


def values(*columns: Any, groups: Any = LONE) -> dict[str, pd.DataFrame]:
    """Frames by run, a, b, ..., each with its column `v`."""
    return {run: table(groups, v=column) for run, column in zip("abcdef", columns, strict=False)}


def around(mean: float, turn: int = 1) -> Any:
    """Forty values of this mean, of a spread of 0.1."""
    return mean + np.roll(NOISE, turn)
