"""The loaded models, and what can be asked of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.attacks import Attack
from diascope.attacks.base import attacks
from diascope.audit import AuditSettings, Subject, open_subjects
from diascope.audit.imagefiles import reader_of
from diascope.data import Preprocess
from diascope.errors import UserError
from diascope.explain import Explainer, explainers
from diascope.explain.base import need_of
from diascope.settings import validate
from diascope.viewer.limits import Refused
from diascope.viewer.pictures import edge_of, ramp
from diascope.viewer.session import Frame, Picture
from diascope.viewer.settings import ViewSettings
from diascope.viewer.work import heed

if TYPE_CHECKING:
    from diascope.data.formats import Depth

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = ("l2", "linf")
WITHOUT_GRADIENTS = ("occlusion",)
QUERIES = 50  # of a black box, for one step of a gradient attack


@dataclass
class Room:
    """Models that tell the same classes at the same size, on one device.

    methods: explainers by name; unfit: of each model the methods that do not explain it, and why.
    """

    subjects: list[Subject]
    settings: ViewSettings
    device: torch.device
    methods: dict[str, Explainer] = field(default_factory=dict)
    unfit: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def open(cls, addresses: Sequence[str], settings: ViewSettings) -> Room:
        """Open the models; raises `UserError` as `open_subjects` does, and for a wrong method."""
        explainers[settings.explainer]
        names = None if settings.classes is None else list(settings.classes)
        subjects = open_subjects(list(addresses), classes=names, size=settings.size)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        room = cls(subjects, settings, device)
        for subject in subjects:
            subject.model.to(device).to(memory_format=torch.channels_last)
            subject.model.register_forward_pre_hook(heed)
        room._find_methods()
        return room

    @property
    def classes(self) -> list[str]:
        """The classes, in the order of the outputs."""
        return list(self.subjects[0].card["classes"])

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return int(self.subjects[0].card["size"])

    @property
    def depth(self) -> Depth:
        """How grey of 16 bits becomes 8, as it was in training."""
        return reader_of(self.subjects[0]).depth

    def grid(self, norm: Norm) -> tuple[float, ...]:
        """Return the epsilons at which images are attacked, ascending, none of them 0."""
        own = self.settings.epsilons if norm == self.settings.norm else None
        content = {"norm": norm, "epsilons": own}
        grid = validate(AuditSettings, content, "view").grid(self.size)
        return tuple(e for e in grid if e > 0)

    def attack_on(self, subject: Subject, norm: Norm, steps: int) -> Attack:
        """Return the strongest attack that a model admits, for about the same price."""
        content: dict[str, Any] = {"name": "pgd", "norm": norm, "steps": steps}
        if not subject.gradients:
            name = "square" if subject.scores else "boundary"
            content = {"name": name, "norm": norm, "queries": QUERIES * steps}
        built: Attack = attacks.build(content, "attack")
        return built

    @property
    def preprocess(self) -> Preprocess:
        """How images become squares, as in training."""
        return Preprocess.model_validate(self.subjects[0].card["preprocess"])

    def prepare(self, image: NDArray[np.uint8]) -> Picture:
        """Return an image (H, W, 1 or 3) as the models were trained to see it."""
        window = self.preprocess.window(image)
        square = self.preprocess.image(image, self.size, window).copy()
        levels = torch.from_numpy(square).permute(2, 0, 1).contiguous()
        return Picture(levels, frame=Frame(image.shape[0], image.shape[1], window))

    def outline(self, mask: NDArray[np.bool_], frame: Frame) -> str:
        """Return the edge of an image's mask (H, W) as `Picture.outline` has it.

        Raises `Refused` for a mask of another size than its image.
        """
        if mask.shape != (frame.height, frame.width):
            height, width = mask.shape
            raise Refused(
                415,
                f"The mask is {width} × {height} pixels, and its image {frame.width} × "
                f"{frame.height}.",
            )
        return edge_of(self.preprocess.mask(mask, self.size, frame.window))

    def tensor(self, picture: Picture) -> Tensor:
        """Return a picture as the models take it, (1, C, H, W) in [0, 1]."""
        return picture.levels[None].float().div(255).to(self.device)

    def described(self) -> dict[str, Any]:
        """Return what the page must know to offer it all."""
        return {
            "classes": self.classes,
            "size": self.size,
            "device": str(self.device),
            "models": [
                {
                    "name": subject.name,
                    "architecture": subject.architecture,
                    "gradients": subject.gradients,
                    "scores": subject.scores,
                    "unfit": self.unfit[subject.name],
                    "attack": "pgd"
                    if subject.gradients
                    else ("square" if subject.scores else "boundary"),
                    "notes": [] if subject.interface is None else subject.interface.problems,
                }
                for subject in self.subjects
            ],
            "methods": list(self.methods),
            "method": self.settings.explainer
            if self.settings.explainer in self.methods
            else next(iter(self.methods)),
            "norm": self.settings.norm,
            "norms": {norm: list(self.grid(norm)) for norm in NORMS},
            "steps": self.settings.steps,
            "queries": QUERIES,
            "ramp": ramp(),
        }

    def _find_methods(self) -> None:
        """Try the methods that do not explain every model on one grey image."""
        channels = self.preprocess.channels
        x = torch.full((1, channels, self.size, self.size), 0.5, device=self.device)
        built: dict[str, Explainer] = {name: explainers.build(name) for name in explainers}
        for subject in self.subjects:
            unfit = self.unfit.setdefault(subject.name, {})
            for name, method in built.items():
                if not subject.gradients and name not in WITHOUT_GRADIENTS:
                    unfit[name] = "it needs gradients, which a black box does not give"
                elif need_of(method) != "any":
                    try:
                        method(subject.model, x, 0, generator=torch.Generator().manual_seed(0))
                    except (UserError, ValueError, RuntimeError, TypeError) as error:
                        unfit[name] = " ".join(str(error).split())[:200]
        fit = [n for n in built if any(n not in self.unfit[s.name] for s in self.subjects)]
        self.methods = {name: built[name] for name in fit}
