"""What a model says of each image as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diascope.evaluation import predict_logits
from diascope.models import heads
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.exam import Exam, Measured


@EVALUATIONS.register("predictions")
@dataclass(frozen=True)
class Predictions:
    """The plain examination: what is right, how sure the model is, and at what loss.

    Columns: `correct`, `confidence` (the probability of the predicted class), `entropy`
    (of the probabilities, in nats), `loss` (cross-entropy of the label, in nats) and
    `prob_<class>`. One forward pass an image, in float32.
    """

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        logits = predict_logits(exam.model, exam.pixels, exam.batch_size, exam.device)
        exam.tell(len(exam.pixels))
        p, y = heads.probabilities(logits).double(), exam.pixels.y()
        columns = {
            "correct": heads.is_correct(logits, y),
            "confidence": p.amax(1),
            "entropy": -(p * p.clamp_min(1e-300).log()).sum(1),
            "loss": heads.cross_entropy(logits, y).double(),
        }
        columns |= {f"prob_{name}": p[:, k] for k, name in enumerate(exam.classes)}
        return Measured({name: np.asarray(values) for name, values in columns.items()})

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes; see `Evaluation`."""
        return float(images)

    def columns(self) -> list[str]:
        """Return the columns; "prob_*" stands for those of the classes."""
        return ["correct", "confidence", "entropy", "loss", "prob_*"]
