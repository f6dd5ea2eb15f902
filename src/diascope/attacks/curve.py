"""The robustness curve: accuracy as the ball grows, and the epsilon that breaks each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack, at_eps, check_images
from diascope.attacks.independent import check_epsilons
from diascope.attacks.minimal import bisect
from diascope.attacks.resume import digest, load, save
from diascope.attacks.trial import Trial, Warm, chunks, trial
from diascope.randomness import Noise

Tell = Callable[[int], None]


@dataclass(frozen=True)
class RobustnessCurve:
    """The result of `robustness_curve`, on the host.

    epsilons (E,): ascending, in pixel units. minimal_epsilon (N,): the smallest at which an image
    was misclassified, 0 where it already is without an attack, inf where none broke it; one of
    the epsilons, or with `refine` a number between two of them. attacked (E,): how many images
    still stood and were tried at each epsilon on the way up; carried (E,): how many of these fell
    to the point of the smaller epsilon, stretched, without an attack. not_finite (N,) bool: the
    logits of the image itself are not finite. x_adv (N, C, H, W) if asked for: the misclassified
    image of the smallest epsilon; the image itself where none broke it.
    """

    epsilons: Tensor
    minimal_epsilon: Tensor
    attacked: Tensor
    carried: Tensor
    not_finite: Tensor
    x_adv: Tensor | None = None

    @property
    def correct(self) -> Tensor:
        """Whether each image withstands each epsilon, (N, E) bool."""
        return self.minimal_epsilon[:, None] > self.epsilons[None]

    @property
    def accuracy(self) -> Tensor:
        """The share of images that withstand each epsilon, (E,), never rising with it."""
        return self.correct.double().mean(0)


def robustness_curve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Attack,
    epsilons: Sequence[float],
    warm: Warm = "lead",
    refine: int = 0,
    transfer_to: nn.Module | None = None,
    rounding: bool = False,
    keep_x_adv: bool = False,
    checkpoint: Path | str | None = None,
    batch_size: int = 64,
    chunk: int | None = None,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    progress: Tell | None = None,
) -> RobustnessCurve:
    """Attack images (N, C, H, W) at ascending `epsilons`, only those that still stand.

    Balls are nested: an image broken at one epsilon is broken at every larger one, so it is not
    attacked again, and the curve cannot rise. An image is said to withstand an epsilon only where
    the attack in full, with the noise it would have alone, failed there or at a larger one.
    Whether an image is broken is decided in float32 eval mode, never under autocast. Epsilon 0,
    which need not be given, is the clean verdict; logits that are not finite count as
    misclassified. A targeted attack's y are the classes wanted.

    warm: what is done with the point that an image reached at the smaller epsilon. It is
    stretched onto the larger ball, and if it breaks the image there, that cost one forward.
    "lead": else some steps climb from it (`brief`), to the largest epsilon that the image so
    withstands, and there it is attacked in full, and at the next smaller if it breaks, and so on;
    attacks that know no shorter one (they have no `brief`), and examples made blindly for another
    model, are taken as by "verdict": all images that stand are attacked in full at every epsilon,
    and at none is the answer weaker than that of attacking all images there. "climb": so, and the
    point is one more start of the attack, for images that withstand the price of one more restart.
    None: nothing is done with it.
    refine: steps of bisection between the largest epsilon that an image withstood and the
    smallest that broke it; `accuracy` stays as it is.
    transfer_to: another model, which the examples made on `model` must break; it alone decides.
    Gradient attacks make one example an image for it; FAB, Square and AutoAttack ask it of each
    find, and search on until one breaks it.
    rounding: examples count only if they still break the model at 8 bits a channel
    (`Threat.round`), and every attack but BoundaryAttack searches on until one does; ValueError if
    the images are not at 8 bits.
    checkpoint: a file to which the finished images' results are written after each chunk. A call
    with the same inputs takes them from there; one with others (model, images, labels, ids, seed,
    attack, epsilons, options; not the sizes of batch and chunk) is refused with a `UserError`.
    The seed comes from `generator`, or torch's own: seed it, or no later call is the same.
    Kept x_adv are in the file, too, all of which is written anew after each chunk.
    batch_size, chunk: images in a call of the attack, and images taken through all epsilons
    together (4 batches if None): only those are on the model's device, with their points.
    ids: (N,) number the images, so that the result does not depend on batch_size or chunk.
    progress: told of images settled at an epsilon, N times the number of epsilons in all.

    Not a check for masked gradients: that needs `independent_accuracy`. Costs, led, the brief
    attack for each epsilon that an image withstands, and the attack once and as often again as it
    breaks more than the brief one; else the attack for each.
    """
    check_images(x)
    check_epsilons(epsilons)
    grid = sorted({float(e) for e in epsilons})
    with trial(
        model,
        x,
        attack,
        batch_size=batch_size,
        generator=generator,
        warm=warm,
        transfer_to=transfer_to,
        rounding=rounding,
    ) as run:
        run.check(x, y)
        noise = Noise.of(x, generator, ids)
        climb = _Climb(run, grid, warm is not None, refine, keep_x_adv, progress)
        path, inputs = None if checkpoint is None else Path(checkpoint), {}
        if path is not None:
            options = (warm, refine, rounding, keep_x_adv)
            inputs = _inputs(model, transfer_to, x, y, noise, run.attack, grid, options)
        table = _blank(x, grid, keep_x_adv)
        if path is not None:
            table = load(path, inputs) or table
        todo = (~table["done"]).nonzero()[:, 0]
        climb.tell((len(x) - len(todo)) * len(grid))
        for rows in chunks(todo, chunk or 4 * batch_size):
            part = climb(x[rows], y[rows], noise.ids[rows])
            _enter(table, rows, part)
            if path is not None:
                save(path, table, inputs)
        run.warn(table["not_finite"])
    del table["done"]
    return RobustnessCurve(torch.tensor(grid, dtype=torch.float64), **table)


@dataclass(frozen=True)
class _Climb:
    """The way of a chunk of images through all epsilons."""

    run: Trial
    grid: list[float]
    warm: bool
    refine: int
    keep: bool
    progress: Tell | None

    def tell(self, count: int) -> None:
        """Report images settled at an epsilon."""
        if self.progress is not None and count:
            self.progress(count)

    def __call__(self, x: Tensor, y: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Return the columns of `RobustnessCurve` for images (B, C, H, W), on the host."""
        run, tracing = self.run, self.keep or self.refine > 0
        x, y, ids = x.detach().to(run.device), y.to(run.device), ids.to(run.device)
        run.judged(x, x)
        broken, wild = run.clean(x, y)
        place = torch.where(broken.cpu(), -1, len(self.grid))  # of the first epsilon that breaks
        found = x.clone() if tracing else x
        tried, carried = self._ascended(x, y, ids, broken, place, found)
        if run.lead is not None:
            self._proved(x, y, ids, place, found)
        minimal = torch.tensor([0.0, *self.grid, torch.inf], dtype=torch.float64)[place + 1]
        if self.refine:
            floor = torch.tensor([0.0, 0.0, *self.grid], dtype=torch.float64)[place + 1]
            minimal, found = bisect(run, x, y, ids, floor, minimal, found, self.refine)
        columns = {
            "minimal_epsilon": minimal,
            "attacked": torch.tensor(tried),
            "carried": torch.tensor(carried),
            "not_finite": wild.cpu(),
        }
        return {**columns, "x_adv": found.cpu()} if self.keep else columns

    def _ascended(
        self, x: Tensor, y: Tensor, ids: Tensor, broken: Tensor, place: Tensor, found: Tensor
    ) -> tuple[list[int], list[int]]:
        """Enter in `broken`, `place` and `found` what breaks on the way up; return both counts."""
        run, before, points = self.run, 0.0, x.clone()
        tried, carried = [], []
        for at, eps in enumerate(self.grid):
            rows = (~broken).nonzero()[:, 0] if eps > 0 else broken.new_empty(0, dtype=torch.long)
            given = self._given(points[rows], x[rows], eps, before)
            self.tell(len(x) - len(rows))
            if run.lead is not None and given is not None:
                outcome = run.ahead(run.lead, x[rows], y[rows], ids[rows], eps, given)
                self.tell(int(outcome.broken.sum()))  # what stands is settled by the proof
            else:
                outcome = run.attempt(x[rows], y[rows], ids[rows], eps, given, self.tell)
            points[rows], hit, before = outcome.points, rows[outcome.broken], eps
            broken[hit], place[hit.cpu()] = True, at
            if found is not x:
                found[hit] = run.judged(outcome.points[outcome.broken], x[hit])
            tried.append(len(rows))
            carried.append(int(outcome.cheaply.sum()))
        return tried, carried

    def _given(self, points: Tensor, x: Tensor, eps: float, before: float) -> Tensor | None:
        """Return where to begin: the points of the ball of `before`, stretched onto that of `eps`.

        None where there are none; what leads then begins at the images.
        """
        if before == 0:
            return x if self.run.lead is not None else None
        if not self.warm:
            return None
        return self.run.threat(eps).project(x + (points - x) * (eps / before), x)

    def _proved(self, x: Tensor, y: Tensor, ids: Tensor, place: Tensor, found: Tensor) -> None:
        """Attack in full, from the largest epsilon that each image withstands down.

        Enters in `place` and `found` what breaks.
        """
        run, least, fallen = self.run, self.grid.count(0.0), list[Tensor]()
        left = (place > least).nonzero()[:, 0]
        while len(left):
            for at in sorted(set(place[left].tolist())):
                for some in chunks(left[place[left] == at], run.batch_size):
                    rows = some.to(x.device)
                    outcome = run.attempt(x[rows], y[rows], ids[rows], self.grid[at - 1])
                    broke, hit = outcome.broken.cpu(), rows[outcome.broken]
                    place[some[broke]] = at - 1
                    if found is not x:
                        found[hit] = run.judged(outcome.points[outcome.broken], x[hit])
                    self.tell(len(hit) + (len(some) - len(hit)) * (at - least))
                    fallen.append(some[broke])
            left = torch.cat(fallen)
            left, fallen = left[place[left] > least], []


def _blank(x: Tensor, grid: list[float], keep: bool) -> dict[str, Tensor]:
    """Return the columns of `RobustnessCurve` before any image is done."""
    none = torch.zeros(len(x), dtype=torch.bool)
    table = {
        "done": none,
        "minimal_epsilon": torch.full((len(x),), torch.nan, dtype=torch.float64),
        "attacked": torch.zeros(len(grid), dtype=torch.long),
        "carried": torch.zeros(len(grid), dtype=torch.long),
        "not_finite": none.clone(),
    }
    return {**table, "x_adv": torch.zeros(x.shape, dtype=x.dtype)} if keep else table


def _enter(table: dict[str, Tensor], rows: Tensor, part: dict[str, Tensor]) -> None:
    """Enter the columns of some images; the counts of the epsilons add up."""
    table["done"][rows] = True
    for name, column in part.items():
        if name in ("attacked", "carried"):
            table[name] += column
        else:
            table[name][rows] = column


def _inputs(
    model: nn.Module,
    transfer_to: nn.Module | None,
    x: Tensor,
    y: Tensor,
    noise: Noise,
    attack: Attack,
    grid: list[float],
    options: tuple[object, ...],
) -> dict[str, str]:
    """Return digests of all that the result depends on, by the name that a message calls it."""
    values = {
        "model": model,
        "transfer_to": transfer_to,
        "images": x,
        "labels": y,
        "ids": noise.ids,
        "seed": noise.seed,
        "attack": at_eps(attack, 0.0),
        "epsilons": grid,
        "options": options,
    }
    return {name: digest(value) for name, value in values.items()}
