"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.hardware import memory_kept
from diascope.models import unwrapped
from diascope.objectives import Objective
from diascope.randomness import derive
from diascope.training.averaging import Averaging
from diascope.training.batches import Batch, Batches
from diascope.training.config import TrainingConfig
from diascope.training.convolutions import SoundConvolutions
from diascope.training.epsilon import at_step
from diascope.training.interrupt import Interrupt
from diascope.training.meter import Clock, Meter, with_clock
from diascope.training.modes import train_mode
from diascope.training.offline import Offline
from diascope.training.outcome import Fit, Row, metrics_table
from diascope.training.progress import Progress
from diascope.training.schedule import Plateau, make_optimizer, multiplier
from diascope.training.selection import Selection
from diascope.training.state import State, Store
from diascope.training.team import Team
from diascope.training.validation import Validation
from diascope.training.watch import Watch

if TYPE_CHECKING:
    from lightning.fabric import Fabric

GO_ON, SAVE, STOP = 0, 1, 2


class NotFiniteError(UserError):
    """The loss is no longer finite."""


class Loop:
    """Trains `model` on `batches`, judged by `validation`; all it draws is a function of the seed.

    Images are drawn in an order of (seed, epoch), augmented and attacked by (seed, epoch, image),
    and dropout is seeded by (seed, epoch, step). So the state of a run is what `_state` returns,
    and a run that goes on from it computes what it would have computed. Each process of `team`
    takes its share of every batch, and DDP averages the gradients; the first writes the files.
    `config` is without `auto`; `weight` (K,) are the classes' weights in the loss.
    """

    def __init__(
        self,
        fabric: Fabric,
        team: Team,
        model: nn.Module,
        objective: Objective,
        batches: Batches,
        validation: Validation,
        config: TrainingConfig,
        weight: Tensor | None,
        store: Store,
        progress: Progress,
        offline: Offline | None = None,
    ) -> None:
        self.images, self.offline = batches.pixels, offline
        self.fabric, self.team = fabric, team
        self.batches, self.validation = batches, validation
        self.config, self.weight = config, weight
        self.store, self.progress = store, progress
        optimizer = make_optimizer(config.optimizer, model.parameters())
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.inner = unwrapped(self.model)
        self.clock, self.objective = Clock(), objective
        self.averaging = Averaging(config.averaging)
        self.plateau = Plateau.of(config.schedule)
        self.selection = Selection(config.metric, config.patience, config.min_delta)
        self.epoch, self.step, self.rows = 0, 0, list[Row]()
        self.watch = Watch(validation)
        self.bad = torch.full((), -1, device=fabric.device)  # the first step without a finite loss
        self._saved = self._checked = time.monotonic()
        self._stop = Interrupt()

    def run(self) -> Fit:
        """Train to the end, from the state in the store if there is one.

        Raises `UserError` where the loss is no longer finite, and KeyboardInterrupt, with the
        state saved, after Ctrl-C.
        """
        state = self.team.from_first(self.store.load() if self.team.first else None)
        if state is not None:
            self._restore(state)
            self.progress.note(f"resumed in epoch {self.epoch + 1}, after step {self.step}")
        cuda = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        kept = nullcontext() if cuda else memory_kept()
        with torch.random.fork_rng(cuda), kept, self._stop:
            while self.epoch < self.config.epochs and not self.selection.exhausted:
                self._run_epoch()
        return self._finish()

    def _run_epoch(self) -> None:
        self._add_copies()
        train_mode(self.model)
        batches = self.batches.rows(self.epoch)
        while self.step < len(batches):
            for rows in batches[self.step + 1 : self.step + 2]:
                self.batches.expect(self.team.share(rows))
            with self.clock.meter.timed("total"):
                self._take_step(batches[self.step])
            self.step += 1
            self._after_step(len(batches))
        self._check_finite()
        began = time.perf_counter()
        self.averaging.after_epoch(self.inner, self.epoch)
        with self.averaging.applied(self.inner):
            judged = self.validation(self.model, self._stop_if_asked)
        self._end_epoch({**judged, "seconds_validation": time.perf_counter() - began})

    def _add_copies(self) -> None:
        """Take the training images of this epoch, with their adversarial copies if it has any."""
        if self.offline is None:
            return
        meter, tick = self.clock.meter, self._stop_if_asked
        with meter.timed("total"), meter.timed("attack"):
            pixels = self.offline.pixels_at(
                self.epoch, self.step, self.inner, self.images, self.progress, tick
            )
        self.batches = replace(self.batches, pixels=pixels)

    def _take_step(self, rows: NDArray[np.int64]) -> None:
        """Descend the mean loss of one batch, of which this process takes its share."""
        meter, rank = self.clock.meter, self.team.rank
        others = [rank] if rank else []  # dropout differs from process to process
        torch.manual_seed(derive(self.config.seed, "step", self.epoch, self.step, *others))
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.step)
        mine = self.team.share(rows)
        parts = np.array_split(mine, min(self.config.accumulate, len(mine)))
        for place, part in enumerate(parts):
            with meter.timed("data"):
                batch = self.batches.load(part, self.epoch)
            share = len(part) * self.team.world / len(rows)
            with meter.timed("update"):
                loss = self._backward(batch, share, last=place + 1 == len(parts))
            meter.add(loss, len(part))
        with meter.timed("update"):
            self._descend()

    def _backward(self, batch: Batch, share: float, *, last: bool) -> Tensor:
        """Add the gradient of `share` of the step's loss; return the mean loss of the images."""
        seed, steps = self.config.seed, len(self.batches)
        objective = at_step(self.objective, self.config.epsilon, self.epoch, self.step, steps, seed)
        later = not last and not self.team.alone
        alone = self.fabric.no_backward_sync(self.model) if later else nullcontext()
        with alone, self._arithmetic():
            with self.fabric.autocast():
                loss = with_clock(objective, self.clock)(
                    self.model,
                    batch.x,
                    batch.y,
                    generator=torch.Generator().manual_seed(derive(seed, "attack", self.epoch)),
                    ids=batch.ids,
                    class_weight=self.weight,
                )
            self.fabric.backward(loss * share if share != 1 else loss)
        self.bad = torch.where((self.bad < 0) & ~loss.detach().isfinite(), self.step, self.bad)
        return loss

    def _arithmetic(self) -> AbstractContextManager[object]:
        return SoundConvolutions() if self.fabric.device.type == "cpu" else nullcontext()

    def _descend(self) -> None:
        if self.config.clip_gradient is not None:
            self.fabric.clip_gradients(
                self.model,
                self.optimizer,
                max_norm=self.config.clip_gradient,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaging.after_step(self.inner, self.epoch)

    def _after_step(self, steps: int) -> None:
        """Look after the loss, the clock, the state and the user."""
        now = time.monotonic()
        if self.team.alone and (self.fabric.device.type == "cpu" or now - self._checked > 1):
            self._check_finite()
        where = f"epoch {self.epoch + 1}/{self.config.epochs}"
        speed = self.clock.meter.speed * self.team.world
        self.progress.step(self.step, steps, where, speed, self._left())
        if not self.team.due(self.step, steps):
            return
        wish = SAVE if now - self._saved >= self.config.checkpoint_seconds else GO_ON
        wish = self.team.agreed(STOP if self._stop.requested else wish, self.fabric.device)
        if wish == SAVE:
            self._save()
        elif wish == STOP:
            self._end_early()

    def _end_epoch(self, judged: Mapping[str, float]) -> None:
        meter = self.clock.meter.of_team(self.team)
        row: Row = {"epoch": self.epoch + 1, "lr": self._lr(self.step - 1), **judged, **meter.row()}
        row["seconds"] = meter.total + row["seconds_validation"]
        self.rows.append(row)
        self.watch.look(self.rows, self.progress)
        if not math.isnan(row["val_loss"]):
            self.plateau.update(row["val_loss"])
        best = False
        if self.config.select == "best" or self.config.patience:
            best = self.selection.update(self.epoch, row)
        if best and self.config.select == "best":
            with self.averaging.applied(self.inner):
                self.store.keep_best(self.epoch, self.inner.state_dict())
        self.epoch, self.step, self.clock.meter = self.epoch + 1, 0, Meter()
        self._save()
        self.progress.epoch(row, self.config.epochs, best, self._left())
        self.store.write_metrics(metrics_table(self.rows, self.watch.alarms))

    def _finish(self) -> Fit:
        chosen = self.epoch - 1
        if self.config.select == "best":
            chosen = self.selection.epoch
            best = self.store.best(chosen) if self.team.first else None
            self.inner.load_state_dict(self.team.from_first(best))
        else:
            self.averaging.settle(self.inner)
        if self.offline is not None and self.team.first:
            self.offline.clear()
        table = metrics_table(self.rows, self.watch.alarms)
        return Fit(self.inner.eval(), chosen + 1, table, self.watch.lines)

    def _lr(self, step: int) -> float:
        config, steps = self.config, len(self.batches)
        factor = multiplier(config.schedule, self.epoch, step, steps, config.epochs)
        return config.optimizer.lr * factor * self.plateau.scale

    def _left(self) -> float:
        """Return about how many seconds the rest of the run takes."""
        seconds, steps = self.clock.meter.total, self.step
        if not steps and self.rows:
            seconds, steps = self.rows[-1]["seconds"], len(self.batches)
        if not steps:
            return math.nan
        whole = seconds / steps * len(self.batches)
        judging = self.rows[-1]["seconds_validation"] if self.rows and self.step else 0.0
        return (self.config.epochs - self.epoch) * (whole + judging) - seconds * bool(self.step)

    def _check_finite(self) -> None:
        """Raise `NotFiniteError` where the loss of a step of this epoch was not finite."""
        self._checked = time.monotonic()
        step = int(self.team.highest(self.bad))
        if step >= 0:
            raise NotFiniteError(
                f"epoch {self.epoch + 1}, step {step + 1}: the loss is not finite; try a lower "
                "training.optimizer.lr, or training.clip_gradient=1, in a new run folder"
            )

    def _stop_if_asked(self) -> None:
        if self._stop.requested and self.team.alone:
            self._end_early()

    def _end_early(self) -> None:
        self._save()
        step = f"epoch {self.epoch + 1}, after step {self.step}"
        self.progress.note(f"stopped in {step}; the same command with --resume goes on")
        raise KeyboardInterrupt

    def _save(self) -> None:
        """Save the state; every process of the team calls it at the same step."""
        self._check_finite()
        state = self._state()
        if self.team.first:
            self.store.save(state)
        self._saved = time.monotonic()

    def _state(self) -> State:
        return {
            "model": self.inner.state_dict(),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "config": self.config.model_dump(mode="json"),
            "epoch": self.epoch,
            "step": self.step,
            "meter": self.clock.meter.of_team(self.team).to_dict(),
            "averaging": self.averaging.to_dict(),
            "plateau": asdict(self.plateau),
            "selection": asdict(self.selection),
            "rows": self.rows,
            "alarms": self.watch.alarms,
        }

    def _restore(self, state: State) -> None:
        self.inner.load_state_dict(state["model"])
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.rows = state["epoch"], state["step"], list(state["rows"])
        meter: dict[str, Any] = dict(state["meter"])
        meter["loss"] = meter["loss"].to(self.fabric.device)
        self.clock.meter = Meter(**meter) if self.team.first else Meter()
        self.averaging.restore(state["averaging"], self.fabric.device)
        self.plateau = Plateau(**state["plateau"])
        self.selection = Selection(**state["selection"])
        self.watch.alarms = dict(state["alarms"])
