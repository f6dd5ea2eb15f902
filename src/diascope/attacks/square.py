"""The square attack: random search that asks for nothing but the scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks import windows
from diascope.attacks.base import (
    Judge,
    attacks,
    broken_and_finite,
    check_images,
    check_labels,
    judge_or_model,
    warn_if_not_finite,
)
from diascope.attacks.losses import Loss, loss_of
from diascope.attacks.threat import Norm, Threat
from diascope.attacks.windows import Moves
from diascope.models.changes import Changes, Points, changes_if
from diascope.models.frozen import Arithmetic, FrozenModel, check_arithmetic, frozen
from diascope.randomness import Noise

_BLOCK = 64  # queries whose random numbers are drawn together, and whose gains are looked at


@dataclass(frozen=True)
class SquareResult:
    """What `Square.run` found.

    x_adv: (B, C, H, W). queries: (B,) int64, how often each image was asked about; 0 if it was
    broken without an attack. broken: (B,) bool, by the model itself in float32.
    """

    x_adv: Tensor
    queries: Tensor
    broken: Tensor


@attacks.register("square")
@dataclass(frozen=True, kw_only=True)
class Square:
    """Change a random window, keep what raises the loss (Andriushchenko et al. 2020, algorithm 1).

    Score-based: forward passes only, so that masked gradients do not mislead it. L-inf: squares
    at +-eps (algorithm 2); L2: bumps that take their length from another window (algorithm 3);
    L1: the same with sums for lengths (Croce and Hein 2021). The window's area starts at `p_init`
    of the image and halves at queries 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of
    10,000, scaled to `queries`.

    norm: "linf", "l2" or "l1". eps: in pixel units, a number or (B,). queries: at most so many an
    image and restart; an image stops at its first misclassified point and leaves the batch. loss:
    "margin", "ce" or "dlr". restarts: from other random numbers; the best point is kept. targeted:
    y holds the class wanted. Windows belong to (seed, image, restart, query), never to the batch.
    Images already broken are returned unchanged.

    Costs one forward pass a query. precision: the gains of late queries are below the rounding of
    bfloat16, so with "bf16" the changes go through the net in it, not the points, on a CPU and
    where they can be followed (`diascope.models.changes`; the model's own code is not run for
    each then); points that seem broken, and every 64 queries what was gained since, are asked about
    in float32, some 2% more passes unless a judge refuses what is broken. "auto": where the
    hardware gains from it. "float32": everything in float32.
    """

    norm: Norm = "linf"
    eps: float | Tensor = 8 / 255
    queries: int = 5000
    p_init: float = 0.8
    loss: Loss = "margin"
    restarts: int = 1
    targeted: bool = False
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        Threat(self.norm, self.eps)
        check_arithmetic(self.precision)
        loss_of(self.loss)
        if self.queries < 1 or self.restarts < 1:
            raise ValueError(
                f"queries={self.queries}, restarts={self.restarts}: at least 1 is needed"
            )
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init={self.p_init}: a share of the image, above 0 and at most 1")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        judge: Judge | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return adversarial images for x (B, C, H, W) in [0, 1] and labels y; see `Attack`.

        judge: decides of (x_adv, x, y) which misclassified points count, instead of the model.
        """
        return self.run(model, x, y, judge=judge, generator=generator, ids=ids).x_adv

    @torch.no_grad()
    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        judge: Judge | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> SquareResult:
        """Return the adversarial images, the queries spent on each, and which are broken."""
        check_images(x, model)
        x, noise = x.detach(), Noise.of(x, generator, ids)
        x_adv = x.clone(memory_format=torch.contiguous_format)
        queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        if not len(x):
            return SquareResult(x_adv, queries, broken)
        value = x.new_full((len(x),), -torch.inf)
        finite = torch.ones_like(broken)
        threat = Threat(self.norm, self.eps).on(x)
        with frozen(model, x, precision="float32") as net:
            check_labels(net, x, y)
            counts = judge_or_model(judge, net, targeted=self.targeted)
            broken |= counts(x, x, y)
            left = x[~broken]
            changes = changes_if(self.precision, net, left, self.queries * len(left))
            for restart in range(self.restarts):
                rows = (~broken).nonzero()[:, 0]
                if not len(rows):
                    break
                search = _Search(self, net, noise.take(rows), restart, counts, changes)
                search.often = judge is not None or x.device.type == "cpu"
                found = search(windows.moves(x[rows], threat.take(rows)), y[rows])
                better = found.broken | (found.value > value[rows])
                kept = rows[better]
                x_adv[kept] = found.at[better].permute(0, 3, 1, 2)
                value[kept] = found.value[better]
                queries[rows] += found.queries
                broken[rows], finite[rows] = found.broken, finite[rows] & found.finite
            warn_if_not_finite(net, finite)
        return SquareResult(x_adv, queries, broken)


@dataclass
class _State:
    """Images of a search: the best point of each, (B, H, W, C), and what is known of it."""

    rows: Tensor  # (B,) their places in the batch
    y: Tensor
    at: Tensor
    value: Tensor  # (B,) the loss there
    rough: Tensor  # (B,) whether that is since known by changes alone
    hit: Tensor  # (B,) whether the model is fooled there
    broken: Tensor  # whether that counts
    queries: Tensor
    finite: Tensor

    def take(self, keep: Tensor) -> _State:
        """Return the state of some of the images."""
        return _State(**{name: field[keep] for name, field in vars(self).items()})

    def put(self, part: _State) -> None:
        """Write the state of some of the images back into their places."""
        for name, field in vars(self).items():
            if name != "rows":
                field[part.rows] = getattr(part, name)


class _Search:
    """One restart of the attack on a frozen model."""

    def __init__(
        self,
        attack: Square,
        net: FrozenModel,
        noise: Noise,
        restart: int,
        judge: Judge,
        changes: Changes | None = None,
    ) -> None:
        self.attack, self.net, self.noise, self.judge = attack, net, noise, judge
        self.changes = changes
        self.known: Points | None = None  # points near those asked about, with `changes`
        self.often = True  # whether broken images are looked for at every query
        self.stream = restart << 20
        self.loss = loss_of(attack.loss, targeted=attack.targeted)

    def __call__(self, moves: Moves, y: Tensor) -> _State:
        """Spend the queries on images around moves.x (B, H, W, C) and return where they ended."""
        attack, noise = self.attack, self.noise
        out = self._begin(moves, y)
        state, u = out.take(out.rows), torch.empty(0)
        for query in range(1, attack.queries + 1):
            block, slot = divmod(query - 2, _BLOCK)
            if query == 1:
                self._try(state, None, moves.start(noise, self.stream), query)
            else:
                if slot == 0:
                    u = noise.uniform((_BLOCK, moves.count), self.stream + 1 + block)
                area = windows.share(query, attack.queries, attack.p_init)
                self._try(state, *moves.change(state.at, u[:, slot], area), query)
            if self.known is None and self.changes is not None:
                self.known = self.changes.known(state.at.permute(0, 3, 1, 2))
                state.rough.zero_()
            if query % _BLOCK == 0 or query == attack.queries:
                self._settle(state)
            gone = self._leaving(state, moves, query)
            if gone is None:
                continue
            out.put(state.take(gone))
            keep = (~state.broken).nonzero()[:, 0]
            state, moves, noise = state.take(keep), moves.take(keep), noise.take(keep)
            u = u[keep] if query > 1 else u
            self.known = self.known and self.known.take(keep)
            if not len(keep):
                break
        out.put(state)
        return out

    def _begin(self, moves: Moves, y: Tensor) -> _State:
        count = len(y)
        return _State(
            rows=torch.arange(count, device=y.device),
            y=y,
            at=moves.x.clone(),
            value=moves.x.new_full((count,), -torch.inf),
            rough=torch.zeros(count, dtype=torch.bool, device=y.device),
            hit=torch.zeros(count, dtype=torch.bool, device=y.device),
            broken=torch.zeros(count, dtype=torch.bool, device=y.device),
            queries=torch.zeros(count, dtype=torch.int64, device=y.device),
            finite=torch.ones(count, dtype=torch.bool, device=y.device),
        )

    def _try(self, state: _State, where: Tensor | None, values: Tensor, query: int) -> None:
        """Ask about the points with `values` at the places `where`, and keep the better ones."""
        if where is None:
            better = self._ask(state, values, query, where)
            state.at = torch.where(better.view(-1, 1, 1, 1), values, state.at)
            return
        flat = state.at.view(len(values), -1)
        old = flat.gather(1, where)
        flat.scatter_(1, where, values)
        better = self._ask(state, state.at, query, where)
        flat.scatter_(1, where, torch.where(better[:, None], values, old))

    def _ask(self, state: _State, point: Tensor, query: int, where: Tensor | None = None) -> Tensor:
        """Ask the model; return where `point` is broken or of a higher loss than before, (B,).

        where: the places where alone it is another than before.
        """
        logits = self._logits(point.permute(0, 3, 1, 2), state.y, where)
        value = self.loss(logits, state.y).to(state.value.dtype).nan_to_num(nan=-torch.inf)
        broken, finite = broken_and_finite(logits, state.y, targeted=self.attack.targeted)
        higher = (broken & ~state.hit) | ((broken == state.hit) & (value > state.value))
        better = higher & ~state.broken
        state.value = torch.where(better, value, state.value)
        state.rough = state.rough | better
        state.queries = torch.where(state.broken, state.queries, query)
        state.finite = state.finite & finite
        if self.known is not None:
            self.known.moved(better.nonzero()[:, 0])
        state.hit = state.hit | (better & broken)
        state.broken = state.broken | (better & broken)
        return better

    def _logits(self, x: Tensor, y: Tensor, where: Tensor | None) -> Tensor:
        """Return the logits of points x (B, C, H, W); in float32 where they are broken."""
        if self.known is None or self.changes is None:
            return self.net(x)  # type: ignore[no-any-return]
        logits = self.changes(x, self.known, where)
        broken, finite = broken_and_finite(logits, y, targeted=self.attack.targeted)
        rows = (broken | ~finite).nonzero()[:, 0]
        if len(rows):
            logits[rows] = self.net(x[rows])
        return logits

    def _settle(self, state: _State) -> None:
        """Ask in float32 about points that were gained by changes, and go back from worse ones."""
        if self.known is None or self.changes is None:
            return
        rows = state.rough.nonzero()[:, 0]
        if not len(rows):
            return
        base, found = self.known, self.changes.known(state.at[rows].permute(0, 3, 1, 2))
        y = state.y[rows]
        old, new = (
            self.loss(logits, y).to(state.value).nan_to_num(nan=-torch.inf)
            for logits in (base.logits[rows], found.logits)
        )
        broken, _ = broken_and_finite(found.logits, y, targeted=self.attack.targeted)
        state.hit[rows] |= broken
        state.broken[rows] |= broken
        gained = (new >= old) | state.hit[rows]
        lost = rows[~gained]
        base.put(rows[gained], found if gained.all() else found.take(gained.nonzero()[:, 0]))
        base.returned(lost)
        state.at[lost] = base.x[lost].permute(0, 2, 3, 1)
        state.value[rows] = torch.where(gained, new, old)
        state.rough[rows] = False

    def _leaving(self, state: _State, moves: Moves, query: int) -> Tensor | None:
        """Return which images leave now, broken beyond doubt, or None if none do.

        On a GPU each look waits and each new batch size is slow at first: seldom, and many at once.
        """
        always = self.often or query == self.attack.queries
        if not (always or query % 10 == 0):
            return None
        rows = state.broken.nonzero()[:, 0]
        if not len(rows) or not (always or len(rows) >= len(state.y) / 8):
            return None
        point, x = (images[rows].permute(0, 3, 1, 2) for images in (state.at, moves.x))
        sure = self.judge(point, x, state.y[rows])
        state.broken[rows] = sure
        return rows[sure] if bool(sure.any()) else None
