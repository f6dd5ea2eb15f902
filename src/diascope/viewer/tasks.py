"""What is computed of one image: predictions, maps, attacks; told piece by piece."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diascope.attacks import Threat, robustness_curve
from diascope.attacks.base import at_eps, verdict
from diascope.audit.imagefiles import image_id, logits_of
from diascope.audit.results import plain
from diascope.audit.subject import Subject
from diascope.errors import UserError
from diascope.explain import render
from diascope.models import heads
from diascope.viewer.pictures import added, as_seen, map_of
from diascope.viewer.room import Norm, Room
from diascope.viewer.session import Attacked, Picture
from diascope.viewer.work import Job, note

REFINE = 4  # halvings of the gap between two epsilons of the grid


def predict(room: Room, picture: Picture) -> Callable[[Job], None]:
    """Return the work of asking every model what an image is."""

    def task(job: Job) -> None:
        x = room.tensor(picture)
        for number, subject in enumerate(room.subjects):
            with _apart(job, subject):
                job.tell({"model": subject.name, **_seen(subject, x)})
            job.progress(number + 1, len(room.subjects))

    return task


def explain(
    room: Room,
    picture: Picture,
    method: str,
    target: int | None,
    attacked: Attacked | None = None,
    first: int = 0,
) -> Callable[[Job], None]:
    """Return the work of mapping the evidence for a class, without and then under attack.

    target: the class, None for what each model makes of the image as it is. Under attack the class
    stays the same. first: the place in the grid that is mapped before the others.
    """

    def task(job: Job) -> None:
        explainer, steps = room.methods[method], _points(attacked, first)
        total, done = len(room.subjects) * (len(steps) + 1), 0
        clean = room.tensor(picture)
        for place in (None, *steps):
            for subject in room.subjects:
                done += 1
                if method in room.unfit[subject.name]:
                    continue
                x = clean
                if place is not None:
                    if attacked is None or subject.name not in attacked.points:
                        continue
                    x = attacked.points[subject.name][place : place + 1].to(room.device)
                with _apart(job, subject):
                    wanted = target if target is not None else _guess(subject, clean)
                    raw = explainer(
                        subject.model, x, wanted, generator=_seeded(room), ids=_ids(picture, x)
                    )
                    heat = render(raw, explainer.rectification)[0]
                    empty = not bool(heat.any())
                    job.tell({
                        "model": subject.name, "step": place, "map": map_of(heat),
                        "target": room.classes[wanted], "empty": empty,
                    })  # fmt: skip
                job.progress(done, total)

    return task


def attack(room: Room, held: Attacked, steps: int) -> Callable[[Job], None]:
    """Return the work of attacking an image at every epsilon, and finding the least that breaks.

    Attacks go away from what each model makes of the image. An epsilon at which the curve broke
    the image and the attack alone did not is shown with the curve's point.
    """

    def task(job: Job) -> None:
        grid = held.epsilons
        total, done = 2 * len(grid) * len(room.subjects), 0

        def tick(count: int = 1) -> None:
            nonlocal done
            done += count
            job.progress(done, total)

        for subject in room.subjects:
            with _apart(job, subject):
                _attack_one(room, held, steps, subject, job, tick)

    return task


def _attack_one(
    room: Room,
    held: Attacked,
    steps: int,
    subject: Subject,
    job: Job,
    tick: Callable[[int], None],
) -> None:
    x, name = room.tensor(held.picture), subject.name
    norm: Norm = "linf" if held.norm == "linf" else "l2"
    method, model = room.attack_on(subject, norm, steps), subject.model
    guess = _guess(subject, x)
    held.classes[name] = guess
    y, ids = torch.tensor([guess], device=room.device), _ids(held.picture, x)
    points = held.points[name] = x.repeat(len(held.epsilons), 1, 1, 1).cpu()
    broken: list[bool] = []

    def show(place: int, x_adv: Tensor) -> None:
        points[place] = x_adv[0].cpu()
        job.tell({"model": name, "step": place, **_pictured(subject, x_adv, x, norm, held, place)})

    for place, eps in enumerate(held.epsilons):
        x_adv = at_eps(method, eps)(model, x, y, generator=_seeded(room), ids=ids)
        broken.append(bool(verdict(model, x_adv, y)[0]))
        show(place, x_adv)
        tick(1)
    curve = robustness_curve(
        model,
        x,
        y,
        attack=method,
        epsilons=held.epsilons,
        refine=REFINE if subject.gradients else 0,
        keep_x_adv=True,
        generator=_seeded(room),
        ids=ids,
        progress=tick,
    )
    alone = [e for e, fell in zip(held.epsilons, broken, strict=True) if fell]
    minimal = min(float(curve.minimal_epsilon[0]), *alone, math.inf)
    missed = [k for k, e in enumerate(held.epsilons) if minimal <= e and not broken[k]]
    for place in missed:
        assert curve.x_adv is not None
        show(place, curve.x_adv.to(x))
    found = plain(minimal)
    job.tell({"model": name, "minimal": found, "refined": subject.gradients, "away": guess})


def _pictured(
    subject: Subject, x_adv: Tensor, x: Tensor, norm: Norm, held: Attacked, place: int
) -> dict[str, Any]:
    """Return an attacked image: how it looks, what was added, what the model makes of it."""
    delta = x_adv - x
    shown = Threat(norm, held.epsilons[place]).round(x_adv, x)
    picture, factor = added(delta[0])
    return {
        "image": as_seen((shown[0] * 255).round().byte().cpu()),
        "added": picture,
        "factor": factor,
        "size": float(Threat(norm, 0.0).size(delta.double())[0]),
        **_seen(subject, x_adv),
    }


def _seen(subject: Subject, x: Tensor) -> dict[str, Any]:
    """Return what a model makes of one image; raises `UserError` for what is not finite."""
    logits = logits_of(subject, x)
    if not bool(logits.isfinite().all()):
        raise UserError(f"{subject.name}: its outputs for this image are not finite")
    p = heads.probabilities(logits)[0].double().cpu()
    return {"prediction": int(heads.predictions(logits)[0]), "probabilities": p.tolist()}


def _guess(subject: Subject, x: Tensor) -> int:
    return int(_seen(subject, x)["prediction"])


@contextmanager
def _apart(job: Job, subject: Subject) -> Iterator[None]:
    """Keep one model's failure, and its warnings, from the others: they are told as its own."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            yield
        except UserError as error:
            job.tell({"model": subject.name, "failed": str(error)})
        except Exception as error:  # whatever a foreign module raises
            what = f"{subject.name}: fails on this image ({note(error)})"
            job.tell({"model": subject.name, "failed": what})
    for each in {str(w.message) for w in heard if w.category.__module__.startswith("diascope")}:
        job.tell({"model": subject.name, "note": each})


def _points(attacked: Attacked | None, first: int) -> list[int]:
    """Return the places of the grid, `first` before the others."""
    if attacked is None:
        return []
    return sorted(range(len(attacked.epsilons)), key=lambda place: place != first)


def _seeded(room: Room) -> torch.Generator:
    return torch.Generator().manual_seed(room.settings.seed)


def _ids(picture: Picture, x: Tensor) -> Tensor:
    return torch.tensor([image_id(picture.levels)], device=x.device)
