"""What the saliency-guided schemes share: which features are masked, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from diascope.attacks.base import logits_and_gradient
from diascope.models.frozen import Arithmetic, frozen
from diascope.models.heads import is_multilabel, predictions, target_score
from diascope.objectives.masking import Channels, Fill, Ranking, count_of, masked, saliency
from diascope.objectives.passes import Compared
from diascope.randomness import Noise

RANKS = 1  # the stream of a random ranking; the fill's is 0


@dataclass(frozen=True, kw_only=True)
class Guided(Compared):
    """The options of M_k, which masks the features of lowest gradient (P3, equation 3).

    k: the share of the features that is masked, in [0, 1]; `round(k * features)` of each image.
    lam: the weight of the divergence. Where it is 0, or where k masks nothing or everything, the
    passes that nothing depends on are left out.
    ranking: "signed", from the most negative gradient up (P3, section 4: features are 'directly
    ordered', unlike in Simonyan et al. 2013; equation 3 of P3 and of P4 sorts the gradient itself),
    "absolute", from the nearest to zero (where both papers say such features lie), or "random",
    any features, drawn anew each time: the control that tells what the gradient's choice adds,
    which leaves out the passes of the ranking.
    score: what is differentiated: "logit", "log_softmax", "probability" or "loss", as in
    `diascope.models.heads.target_score`. The papers write the gradient of the output f(X), and P3
    reads its sign as raising or lowering the 'score of the class' in Simonyan et al. 2013, which
    is the score before the softmax: so the logit. With several labels it is the sum over labels
    of the score of each one's value. "loss" turns the signed ranking of "log_softmax" round.
    target: the class whose score it is, the "label" (ours: no paper says) or the "prediction".
    channels: "each": every colour value is a feature, ranked by itself ('the gradient of each
    feature'); "mean": pixels are ranked by the mean over their channels, of which "absolute" then
    takes the size; "mean_abs": by the mean of the absolute values. Grey images know no difference.
    fill: "uniform", values drawn between the lowest and the highest of the image's own channel
    ('random values within the feature range'), or a constant in [0, 1].
    precision: of the ranking's gradient. One frozen model serves ranking and attack, so that an
    attack whose own precision is "auto" has it too.
    """

    k: float = 0.1
    lam: float = 1.0
    ranking: Ranking = "signed"
    score: Literal["logit", "log_softmax", "probability", "loss"] = "logit"
    target: Literal["label", "prediction"] = "label"
    channels: Channels = "each"
    fill: Fill = "uniform"
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.k <= 1:
            raise ValueError(f"k={self.k}: a share of the features, from 0 to 1")
        if not self.lam >= 0:
            raise ValueError(f"lam={self.lam}: must be at least 0")
        if not _is_fill(self.fill):
            raise ValueError(f"fill={self.fill!r}: 'uniform' or a number from 0 to 1")
        if self.channels == "mean_abs" and self.ranking == "signed":
            raise ValueError("channels='mean_abs' has no signs; give ranking='absolute'")

    @contextmanager
    def _net(self, model: nn.Module, x: Tensor) -> Iterator[nn.Module]:
        """Give the model that is ranked, ready for the attack too."""
        with self._searched(model) as inner, frozen(inner, x, precision=self.precision) as net:
            yield net

    def _masked(self, net: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Return M_k(x) for images (B, C, H, W); no gradient flows through it.

        One forward and one backward pass to the input, none for a random ranking.
        """
        x = x.detach()
        pixels = x.shape[2:].numel()
        features = pixels * (x.shape[1] if self.channels == "each" else 1)
        if count_of(self.k, features) == 0:
            return x
        if count_of(self.k, features) == features:
            ranked = x if self.channels == "each" else x[:, :1]
        elif self.ranking == "random":
            ranked = noise.uniform((features,), RANKS).view(len(x), -1, *x.shape[2:])
        else:
            _, gradient = logits_and_gradient(net, x, y, self._target_score)
            ranked = saliency(gradient, self.ranking, self.channels)
        return masked(x, ranked, self.k, self.fill, noise)

    def _target_score(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return what is differentiated for each image, (B,)."""
        multilabel = is_multilabel(logits, y)
        if self.target == "prediction":
            y = predictions(logits, multilabel=multilabel)
        if not multilabel:
            return target_score(logits, y, self.score)
        each = target_score(logits.reshape(-1, 1), y.reshape(-1), self.score)
        return each.view(y.shape).sum(1)


def _is_fill(fill: object) -> bool:
    return fill == "uniform" or (isinstance(fill, float | int) and 0 <= fill <= 1)
