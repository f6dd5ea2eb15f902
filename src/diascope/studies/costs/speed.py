"""How fast one device trains models of one kind."""

from __future__ import annotations

from dataclasses import dataclass

from diascope.studies.costs.stages import Stage


@dataclass(frozen=True)
class Speed:
    """Seconds on one device, of one kind of training.

    image: an image of a training step, where the batch is large. least: a step, however few its
    images. forward: an image of a forward pass; least_pass: a pass, however few its images. judged:
    an image of validation, attacks included; None where that is not known as a whole. source: how
    these are known, in words.
    """

    image: float
    forward: float
    source: str
    least: float = 0.0
    least_pass: float = 0.0
    judged: float | None = None

    def step(self, images: float) -> float:
        """Return the seconds of a step of so many images."""
        return max(self.least, images * self.image)

    def validation(self, stage: Stage) -> float:
        """Return the seconds of judging an epoch."""
        if self.judged is not None:
            return stage.val * self.judged
        return stage.judging * self.forward

    def stage(self, stage: Stage) -> float:
        """Return the seconds of a whole stage."""
        epoch = stage.steps * self.step(stage.batch) + self.validation(stage)
        return stage.epochs * epoch + stage.preparing * self.forward
