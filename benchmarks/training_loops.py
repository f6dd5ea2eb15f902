"""Training steps and whole trainings: ours through `fit`, and each peer's as its users write it.

A peer keeps its own copy of the net, in float32 and torch's own layout, and an optimizer of the
same settings as ours. All train on the same images, without augmentation.
"""

from __future__ import annotations

import contextlib
import copy
import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.timing import Seconds, wait
from diascope.data import Pixels
from diascope.objectives import Objective
from diascope.training import Fit, Progress, TrainingConfig, fit
from diascope.training.schedule import make_optimizer

ATTACK_STEPS, REL_STEP_SIZE = 7, 0.2  # P1: PGD-L2, 7 steps of eps / 5, random start


def our_config(**settings: Any) -> TrainingConfig:
    """Return a configuration without augmentation that takes the last epoch."""
    return TrainingConfig.model_validate({"select": "last", "augment": None, **settings})


def our_fit(
    model: nn.Module,
    objective: Objective,
    train: Pixels,
    config: TrainingConfig,
    progress: Progress | None = None,
) -> Fit:
    """Train a copy of `model` as `diascope train` does, without validation images."""
    return fit(
        copy.deepcopy(model), objective, train, train.take(slice(0)), config, progress=progress
    )


@dataclass(frozen=True)
class OurStep:
    """The contender of our own training: the last step of a short `fit`, loading included.

    The first step looks at the model and fills the optimizer, which an epoch does once. `train`
    holds twice the images of a batch.
    """

    model: nn.Module
    objective: Objective
    train: Pixels
    device: torch.device

    def __call__(self, number: int) -> Seconds:
        """Return the seconds of one step."""
        watch = _Watch(self.device)
        half = (len(self.train) + 1) // 2
        config = our_config(epochs=1, batch_size=half, seed=number, device=self.device.type)
        our_fit(self.model, self.objective, self.train, config, watch)
        return Seconds(watch.times[-1] - watch.times[-2])


class _Watch(Progress):
    """Takes the time after every step."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, list[float]()

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Take the time."""
        wait(self.device)
        self.times.append(time.perf_counter())


class Trainer(Protocol):
    """A peer's training of its own `model`."""

    model: nn.Module

    def step(self, x: Tensor, y: Tensor) -> object:
        """Take one step on images (B, C, H, W) and labels (B,)."""

    def train(self, x: Tensor, y: Tensor, epochs: int, batch_size: int, seed: int) -> None:
        """Train on all images, shuffled, for some epochs."""


@dataclass
class TorchLoop:
    """A float32 loop of torch; `loss_of` (model, x, y) makes the loss to descend."""

    model: nn.Module
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.model).train()
        self.optimizer = make_optimizer(TrainingConfig().optimizer, self.model.parameters())

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one step."""
        self.model.train()
        loss = self.loss_of(self.model, x, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train(self, x: Tensor, y: Tensor, epochs: int, batch_size: int, seed: int) -> None:
        """Train on all images, shuffled, for some epochs."""
        torch.manual_seed(seed)
        loader = DataLoader(TensorDataset(x, y), batch_size, shuffle=True)
        for _ in range(epochs):
            for batch, labels in loader:
                self.step(batch, labels)


def torchattacks_pgd(model: nn.Module, eps: float) -> TorchLoop:
    """Return the loop of adversarial training with torchattacks' PGD-L2."""
    import torchattacks

    loop = TorchLoop(model, lambda net, x, y: F.cross_entropy(net(attack(x, y)), y))
    attack = torchattacks.PGDL2(
        loop.model, eps=eps, alpha=REL_STEP_SIZE * eps, steps=ATTACK_STEPS, random_start=True
    )  # it puts the model into eval mode and back into train mode
    return loop


@dataclass
class ArtTrainer:
    """ART's AdversarialTrainer with its PGD-L2, all images of a batch attacked."""

    model: nn.Module
    eps: float
    classes: int
    _trainers: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.model)
        self.optimizer = make_optimizer(TrainingConfig().optimizer, self.model.parameters())

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one step: `fit` on the images of one batch."""
        self._fit(x, y, 1, len(x))

    def train(self, x: Tensor, y: Tensor, epochs: int, batch_size: int, seed: int) -> None:
        """Train on all images, shuffled, for some epochs."""
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - ART draws from it
        self._fit(x, y, epochs, batch_size)

    def _fit(self, x: Tensor, y: Tensor, epochs: int, batch_size: int) -> None:
        trainer = self._trainer((*x.shape[1:], batch_size))
        with _silent():
            trainer.fit(x.numpy(), y.numpy(), batch_size=batch_size, nb_epochs=epochs)

    def _trainer(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._trainers:
            self._trainers[shape] = self._made(shape[:-1], shape[-1])
        return self._trainers[shape]

    def _made(self, shape: tuple[int, ...], batch_size: int) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"art(\..*)?")
            from art.attacks.evasion import ProjectedGradientDescent
            from art.defences.trainer import AdversarialTrainer
            from art.estimators.classification import PyTorchClassifier
        cuda = next(self.model.parameters()).is_cuda
        classifier = PyTorchClassifier(
            model=self.model,
            loss=nn.CrossEntropyLoss(),
            optimizer=self.optimizer,
            input_shape=shape,
            nb_classes=self.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if cuda else "cpu",
        )
        attack = ProjectedGradientDescent(
            classifier,
            norm=2,
            eps=self.eps,
            eps_step=REL_STEP_SIZE * self.eps,
            max_iter=ATTACK_STEPS,
            num_random_init=1,
            batch_size=batch_size,  # its default of 32 would split larger batches
            verbose=False,
        )
        return AdversarialTrainer(classifier, attacks=attack, ratio=1.0)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep ART's bars, which it cannot be told to leave out, from the terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def saliency_guided_reference(model: nn.Module, k: float, lam: float, seed: int) -> TorchLoop:
    """Return the loop of saliency-guided training as its authors' public code arranges it.

    Written from the method's description (Ismail et al. 2021, algorithm 1): forward and backward
    in eval mode for the gradient of the true class's logit to the image; the share `k` of the
    features with the lowest gradient replaced, image by image on the host, by uniform draws from
    the image's range in that channel; a forward of the image and one of the masked image; one
    backward of CE + lam * KL. Three forwards and two backwards a step. The direction of the
    divergence is this package's default, which costs the same as the paper's.
    """
    draw = np.random.default_rng(seed)

    def loss_of(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        net.eval()
        images = x.detach().clone().requires_grad_(True)
        score = net(images).gather(1, y[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, images)
        masked = masked_on_the_host(x, gradient, k, draw)
        net.train()
        logits, of_masked = net(x), net(masked)
        divergence = F.kl_div(
            logits.log_softmax(1), of_masked.log_softmax(1), reduction="batchmean", log_target=True
        )
        return F.cross_entropy(logits, y) + lam * divergence

    return TorchLoop(model, loss_of)


def masked_on_the_host(x: Tensor, gradient: Tensor, k: float, draw: np.random.Generator) -> Tensor:
    """Return x (B, C, H, W) with the share `k` of each image's lowest gradients drawn anew."""
    images, gradients = x.cpu().numpy().copy(), gradient.cpu().numpy()
    for image, slope in zip(images, gradients, strict=True):
        flat = slope.ravel()
        lowest = np.argpartition(flat, round(k * flat.size))[: round(k * flat.size)]
        chosen = np.zeros(flat.size, bool)
        chosen[lowest] = True
        for channel, inside in zip(image, chosen.reshape(image.shape), strict=True):
            channel[inside] = draw.uniform(channel.min(), channel.max(), inside.sum())
    return torch.from_numpy(images).to(x.device)


def in_turn(trainer: Trainer, x: Tensor, y: Tensor) -> Callable[[int], object]:
    """Return the contender that takes a step on one half of the images, then on the other."""
    batches: Sequence[tuple[Tensor, Tensor]] = list(zip(x.chunk(2), y.chunk(2), strict=True))
    return lambda number: trainer.step(*batches[number % 2])
