"""The peers, each used as its documentation says; contenders take (x, y) and give x_adv.

Every contender gets its own copy of the model, in eval mode, so that none finds the traces of
another. Peers that are not installed are left out.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import record
from diascope.errors import UserError

Attacker = Callable[[Tensor, Tensor], Tensor]

PACKAGES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
}


def installed() -> list[str]:
    """Return the peers that are installed."""
    return [name for name, package in PACKAGES.items() if record.version_of(package)]


def own_copy(model: nn.Module) -> nn.Module:
    """Return a copy of the model in eval mode."""
    return copy.deepcopy(model).eval()


def pgd(
    peer: str, model: nn.Module, norm: str, eps: float, steps: int, step_size: float
) -> Attacker:
    """Return a peer's PGD with a random start, in "l2" or "linf"."""
    builders = {"torchattacks": _torchattacks_pgd, "foolbox": _foolbox_pgd, "art": _art_pgd}
    return builders[peer](own_copy(model), norm, eps, steps, step_size)


def _torchattacks_pgd(
    model: nn.Module, norm: str, eps: float, steps: int, step_size: float
) -> Attacker:
    import torchattacks

    family = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    attack: Attacker = family(model, eps=eps, alpha=step_size, steps=steps, random_start=True)
    return attack


def _foolbox_pgd(model: nn.Module, norm: str, eps: float, steps: int, step_size: float) -> Attacker:
    import foolbox

    family = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    attack = family(abs_stepsize=step_size, steps=steps, random_start=True)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=_device(model))

    def run(x: Tensor, y: Tensor) -> Tensor:
        _, clipped, _ = attack(wrapped, x, y, epsilons=eps)
        return torch.as_tensor(clipped)

    return run


def _art_pgd(model: nn.Module, norm: str, eps: float, steps: int, step_size: float) -> Attacker:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"art(\..*)?")
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

    @functools.cache
    def classifier(shape: torch.Size) -> PyTorchClassifier:
        return PyTorchClassifier(
            model=model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(shape),
            nb_classes=_classes(model),
            clip_values=(0.0, 1.0),
            device_type="gpu" if _device(model).type == "cuda" else "cpu",
        )

    def run(x: Tensor, y: Tensor) -> Tensor:
        attack = ProjectedGradientDescent(
            classifier(x.shape[1:]),
            norm=np.inf if norm == "linf" else 2,
            eps=eps,
            eps_step=step_size,
            max_iter=steps,
            num_random_init=1,
            batch_size=len(x),  # its default of 32 would split larger batches
            verbose=False,
        )
        found = attack.generate(x.cpu().numpy(), y.cpu().numpy())
        return torch.from_numpy(found).to(x.device)

    return run


def foolbox_curve(
    model: nn.Module, epsilons: Sequence[float], steps: int, batch_size: int
) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """Return foolbox's L-inf PGD at every epsilon, with its steps of eps / 30."""
    import foolbox

    model = own_copy(model)
    attack = foolbox.attacks.LinfPGD(steps=steps)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=_device(model))

    def run(x: Tensor, y: Tensor) -> list[Tensor]:
        parts: list[list[Tensor]] = []
        for xs, ys in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            _, clipped, _ = attack(wrapped, xs, ys, epsilons=list(epsilons))
            parts.append(clipped)
        return [torch.cat(same) for same in zip(*parts, strict=True)]

    return run


def torchattacks_autoattack(
    model: nn.Module,
    norm: str,
    eps: float,
    seed: int,
    steps: int | None = 100,
    queries: int = 5000,
) -> Attacker:
    """Return torchattacks' AutoAttack, standard version; it needs four classes or more.

    As it comes (`steps` None) its APGD, targeted APGD and FAB take 10 steps, where the standard
    version of Croce and Hein 2020 takes 100; and it has no parameter for them: they are set on
    its members.
    """
    import torchattacks

    classes = _classes(model)
    if classes < 4:
        raise UserError(f"torchattacks' AutoAttack needs 4 classes or more, not {classes}")
    attack = torchattacks.AutoAttack(
        own_copy(model),
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=eps,
        version="standard",
        n_classes=classes,
        seed=seed,
    )
    *iterative, square = attack._autoattack.attacks
    for member in iterative:
        member.steps = member.steps if steps is None else steps
    square.n_queries = queries
    found: Attacker = attack
    return found


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _classes(model: nn.Module) -> int:
    return int(model.spec.num_classes)  # type: ignore[union-attr,arg-type]
