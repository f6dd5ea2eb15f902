"""Which of ImageNet's 1000 classes are taken for which of CIFAR-10's ten: a choice of ours.

A group holds the classes of ILSVRC 2012 below a noun of WordNet 3.0 that means what CIFAR-10's
class means; the reason beside each says where the two differ. Indices are in the usual order of
ILSVRC's synsets, which `timm` also follows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """A class of CIFAR-10, the noun of WordNet above its ImageNet classes, and their indices."""

    name: str
    noun: str
    indices: tuple[int, ...]
    reason: str


GROUPS = (
    Group("airplane", "airplane.n.01", (404, 895), "airliner and warplane; airships do not fly so"),
    Group(
        "automobile",
        "car.n.01",
        (407, 436, 468, 511, 609, 627, 656, 661, 751, 817),
        "all ten below car.n.01, ambulance and minivan too; no pickup, as in CIFAR-10",
    ),
    Group(
        "bird",
        "bird.n.01",
        (*range(7, 25), *range(80, 101), *range(127, 147)),
        "all 59; ILSVRC keeps them in three runs",
    ),
    Group("cat", "domestic_cat.n.01", tuple(range(281, 286)), "no wild cats, as in CIFAR-10"),
    Group(
        "deer",
        "antelope.n.01",
        (351, 352, 353),
        "ImageNet's 1000 have no deer: hartebeest, impala and gazelle are the likest ruminants",
    ),
    Group("dog", "dog.n.01", tuple(range(151, 269)), "all 118 breeds; no wolves, dingos, foxes"),
    Group("frog", "frog.n.01", (30, 31, 32), "bullfrog, tree frog and tailed frog"),
    Group("horse", "equine.n.01", (339, 340), "sorrel is the only horse; the zebra stands by it"),
    Group(
        "ship",
        "vessel.n.02",
        (403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914),
        "vessels of all sizes, from canoe to aircraft carrier; no wreck",
    ),
    Group(
        "truck",
        "truck.n.01",
        (555, 569, 675, 734, 864, 867),
        "fire engine, garbage truck, two vans, tow truck, trailer truck; no pickup, as in CIFAR-10",
    ),
)
