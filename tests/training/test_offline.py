"""Adversarial copies added to the training set, once or every n epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.training.toy import CLASSES, toy_net, toy_pixels
from torch import Tensor, nn

from diascope.attacks import FGSM, PGD, Threat
from diascope.attacks.base import verdict
from diascope.data import Augment, Pixels
from diascope.data.joined import Stacked, with_copies
from diascope.errors import UserError
from diascope.models import create_model, save_model
from diascope.randomness import derive
from diascope.settings import validate
from diascope.training.batches import Batches
from diascope.training.copies import COUNTS, PUSHES, adversarial_copies
from diascope.training.offline import Offline, OfflineConfig
from diascope.training.progress import Progress
from diascope.training.team import Team

PGD_STEPS = {"name": "pgd", "norm": "linf", "eps": 0.1, "steps": 2, "precision": "float32"}
BOUNDARY = {"name": "boundary", "queries": 300}
TRAIN = toy_pixels(30)


class Killed(BaseException):
    """Stands for the end of the process."""


class Member(Team):
    """One process of several, which do not meet."""

    def __init__(self, rank: int, world: int) -> None:
        self._fabric, self.rank, self.world = None, rank, world


def config(**settings: object) -> OfflineConfig:
    settings = {"attack": PGD_STEPS, "batch_size": 8} | settings
    return validate(OfflineConfig, settings, "offline")


def trained(pixels: Pixels = TRAIN, steps: int = 60) -> nn.Module:
    net = toy_net(dropout=0.0)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(pixels.x()), pixels.y()).backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained()


def same(a: Pixels, b: Pixels) -> bool:
    pd.testing.assert_frame_equal(a.dataset.table, b.dataset.table)
    return np.array_equal(np.asarray(a.images), np.asarray(b.images))


def test_copies_are_the_attacks_images_at_8_bits_beside_the_originals(net: nn.Module) -> None:
    found = Offline(config(), seed=3).pixels_at(0, 0, net, TRAIN)
    assert len(found) == 60
    assert np.array_equal(np.asarray(found.images)[:30], TRAIN.images)
    x, y = TRAIN.x(), TRAIN.y()
    generator = torch.Generator().manual_seed(derive(3, "offline", 0, 0))
    attack = PGD(norm="linf", eps=0.1, steps=2, precision="float32")
    x_adv = attack(net, x, y, generator=generator, ids=TRAIN.ids())
    want = Threat("linf", 0.1).round(x_adv, x)
    assert torch.equal(found.x(range(30, 60)), (want * 255).round().div(255))
    change = (found.x(range(30, 60)) - x).abs().flatten(1).amax(1)
    assert bool((change <= 0.1 + 1e-6).all())
    assert bool((change > 0.09).all())
    assert net.training


def test_a_copy_has_the_label_and_group_of_its_image_and_noise_of_its_own(net: nn.Module) -> None:
    table = TRAIN.dataset.table.assign(group=["p1", "p1", *[""] * 28])
    train = replace(TRAIN, dataset=replace(TRAIN.dataset, table=table))
    found = Offline(config(), seed=0).pixels_at(0, 0, net, train)
    data = found.dataset
    assert (data.labels[:30] == data.labels[30:]).all()
    assert (data.groups[:30] == data.groups[30:]).all()
    assert len(set(data.groups)) == 29
    assert (data.ids[:30] == train.dataset.ids).all()
    assert len(set(data.ids)) == 60
    batches = Batches(found, 8, seed=0, augment=Augment())
    same_image = with_copies(train, [np.asarray(train.images)], np.arange(30), ["~same"] * 30)
    batch = replace(batches, pixels=same_image).load(np.array([4, 34]), 0)
    assert not torch.allclose(batch.x[0], batch.x[1], atol=0.05)
    assert sum(len(rows) for rows in batches.rows(0)) == 60


def test_masks_go_with_the_copies() -> None:
    masks = np.random.default_rng(0).integers(0, 2, (30, 8, 8), np.uint8)
    has = np.arange(30) % 2 == 0
    train = replace(TRAIN, masks=masks, has_mask=has).take(np.arange(29, -1, -1))
    of = np.array([3, 7])
    found = with_copies(train, [np.asarray(train.images)[of]], of, ["~a", "~a"])
    assert torch.equal(found.m([30, 31]), train.m([3, 7]))
    assert found.has_mask[30:].tolist() == train.has_mask[of].tolist()
    assert torch.equal(found.take([31, 2]).x(), train.x([7, 2]))
    assert with_copies(train, [], np.array([], np.int64), []) is train


def test_stacked_arrays_are_one() -> None:
    draw = np.random.default_rng(0)
    parts = [draw.integers(0, 256, (n, 2, 3, 1), np.uint8) for n in (4, 0, 1, 5)]
    whole, stacked = np.concatenate(parts), Stacked(parts)
    rows = np.array([9, 0, 4, 4, 3, 5])
    assert np.array_equal(stacked[rows], whole[rows])
    assert np.array_equal(stacked[4], whole[4])
    assert (stacked.shape, len(stacked), stacked.dtype) == (whole.shape, 10, np.uint8)
    with pytest.raises(ValueError, match="do not stack"):
        Stacked([whole, whole[:, :1]])


def test_the_result_does_not_depend_on_the_chunks_or_the_processes(net: nn.Module) -> None:
    whole = Offline(config(batch_size=64), 0).pixels_at(0, 0, net, TRAIN)
    assert same(Offline(config(batch_size=7), 0).pixels_at(0, 0, net, TRAIN), whole)


def test_each_process_makes_its_share(tmp_path: Path, net: nn.Module) -> None:
    alone = Offline(config(), 0).pixels_at(0, 0, net, TRAIN)
    members = [Offline(config(), 0, tmp_path, Member(rank, 2)) for rank in range(2)]
    with pytest.raises(UserError, match="are not here"):
        members[1].pixels_at(0, 0, net, TRAIN)  # the first one's share is not made yet
    assert len(list(tmp_path.glob("offline/*.npy"))) == 2
    assert not (tmp_path / "offline.csv").exists()
    for member in members:
        assert same(member.pixels_at(0, 0, net, TRAIN), alone)
    assert (tmp_path / "offline.csv").exists()
    assert same(Offline(config(), 0, None, Member(1, 2)).pixels_at(0, 0, net, TRAIN), alone)


def test_seeds_epochs_and_shares(net: nn.Module) -> None:
    def rows_of(seed: int, epoch: int) -> list[str]:
        offline = Offline(config(share=0.4, every=2), seed)
        return list(offline.pixels_at(epoch, 0, net, TRAIN).dataset.table.path[30:])

    assert len(rows_of(0, 0)) == 12
    assert rows_of(0, 0) == rows_of(0, 0)
    assert len({tuple(rows_of(*key)) for key in ((0, 0), (0, 2), (0, 4), (1, 0))}) == 4
    starts = [Offline(config(attack=PGD_STEPS | {"steps": 1}), s) for s in (0, 1)]
    assert not same(*(each.pixels_at(0, 0, net, TRAIN) for each in starts))


def test_several_attacks_each_make_copies(tmp_path: Path, net: nn.Module) -> None:
    attacks = [PGD_STEPS, {"name": "fgsm", "eps": 0.05}, PGD_STEPS | {"eps": 0.02}]
    found = Offline(config(attack=attacks), 0, tmp_path).pixels_at(0, 0, net, TRAIN)
    endings = found.dataset.table.path[30:].str.partition("~")[2].value_counts().to_dict()
    assert endings == {"pgd": 30, "fgsm": 30, "pgd-2": 30}
    want = Threat("linf", 0.05).round(FGSM(eps=0.05)(net, TRAIN.x(), TRAIN.y()), TRAIN.x())
    assert torch.allclose(found.x(range(60, 90)), want, atol=1e-6)


def test_made_anew_every_n_epochs_of_the_model_as_it_is(tmp_path: Path) -> None:
    model = trained(steps=5)
    offline = Offline(config(every=2), 0, tmp_path)
    first = offline.pixels_at(0, 0, model, TRAIN)
    before = np.asarray(first.images).copy()
    model.load_state_dict(trained(steps=60).state_dict())
    assert offline.pixels_at(1, 0, model, TRAIN) is first
    assert offline.pixels_at(1, 3, model, TRAIN) is first
    second = offline.pixels_at(2, 0, model, TRAIN)
    assert not np.array_equal(np.asarray(second.images), before)
    assert {file.name[:4] for file in tmp_path.glob("offline/*")} == {"0002"}
    table = pd.read_csv(tmp_path / "offline.csv")
    assert table.epoch.tolist() == [1, 3]
    once = Offline(config(), 0)
    kept = once.pixels_at(0, 0, model, TRAIN)
    model.load_state_dict(trained(steps=1).state_dict())
    assert once.pixels_at(7, 0, model, TRAIN) is kept
    offline.clear()
    assert not (tmp_path / "offline").exists()
    assert (tmp_path / "offline.csv").exists()


def test_a_process_that_ends_at_any_write_goes_on_to_the_same_copies(
    tmp_path: Path, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Offline(config(), 0).pixels_at(0, 0, net, TRAIN)
    moved, count, at = Path.replace, 0, 0

    def counted(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        done = moved(path, target)
        if count == -at:
            raise Killed
        return done

    monkeypatch.setattr(Path, "replace", counted)
    Offline(config(), 0, tmp_path / "counted").pixels_at(0, 0, net, TRAIN)
    writes = count
    assert writes == 2 * 4 + 1
    for number in range(1, writes + 1):
        for sign in (1, -1):
            folder, count, at = tmp_path / f"{sign * number}", 0, sign * number
            with pytest.raises(Killed):
                Offline(config(), 0, folder).pixels_at(0, 0, net, TRAIN)
            made: list[int] = []
            attack = PGD.__call__

            def seen(*args, made=made, attack=attack, **more):
                made.append(len(args[2]))
                return attack(*args, **more)

            with monkeypatch.context() as patch:
                patch.setattr(PGD, "__call__", seen)
                again = Offline(config(), 0, folder).pixels_at(0, 0, net, TRAIN)
            assert same(again, whole)
            complete = (number - (sign > 0)) // 2  # two writes a chunk, the images and the note
            assert len(made) == 4 - min(4, complete)


def test_what_is_not_finished_is_swept_away(tmp_path: Path, net: nn.Module) -> None:
    folder = tmp_path / "offline"
    folder.mkdir()
    for name in (".0000-0-00000.npy.abc.npy", "0004-0-00000.npy", "0004-0-00000.json"):
        (folder / name).write_text("half")
    Offline(config(), 0, tmp_path).pixels_at(0, 0, net, TRAIN)
    assert len(list(folder.iterdir())) == 8


def test_a_resume_in_the_middle_of_an_epoch_reads_what_was_made(
    tmp_path: Path, net: nn.Module
) -> None:
    first = Offline(config(), 0, tmp_path).pixels_at(0, 0, net, TRAIN)
    moved_on = trained(steps=3)
    assert same(Offline(config(), 0, tmp_path).pixels_at(0, 2, moved_on, TRAIN), first)
    assert same(Offline(config(), 0, tmp_path).pixels_at(5, 0, moved_on, TRAIN), first)
    for other in (config(attack=PGD_STEPS | {"eps": 0.2}), config(share=0.5)):
        with pytest.raises(UserError, match="epoch 1 are not here"):
            Offline(other, 0, tmp_path).pixels_at(0, 2, moved_on, TRAIN)
    next(tmp_path.glob("offline/*.json")).unlink()
    with pytest.raises(UserError, match=r"offline: .* begin the run anew") as error:
        Offline(config(), 0, tmp_path).pixels_at(0, 2, moved_on, TRAIN)
    assert "\n" not in str(error.value)


def test_leftovers_of_other_weights_are_made_anew(tmp_path: Path, net: nn.Module) -> None:
    Offline(config(), 0, tmp_path).pixels_at(0, 0, trained(steps=3), TRAIN)
    again = Offline(config(), 0, tmp_path).pixels_at(0, 0, net, TRAIN)
    assert same(again, Offline(config(), 0).pixels_at(0, 0, net, TRAIN))


class Watch(Progress):
    def __init__(self) -> None:
        self.notes, self.seen = list[str](), list[tuple[int, int]]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def copies(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        assert where == "boundary copies for epoch 1"
        assert speed > 0
        assert left >= 0
        self.seen.append((done, total))


def test_boundary_copies_fool_the_model_at_8_bits(tmp_path: Path, net: nn.Module) -> None:
    watch = Watch()
    ticks: list[int] = []
    offline = Offline(config(attack=BOUNDARY), 0, tmp_path)
    found = offline.pixels_at(0, 0, net, TRAIN, watch, lambda: ticks.append(1))
    assert watch.seen == [(8, 30), (16, 30), (24, 30), (30, 30)]
    assert len(ticks) == 4
    count = pd.read_csv(tmp_path / "offline.csv").iloc[0]
    copies = range(30, len(found))
    wrong = int(verdict(net, TRAIN.x(), TRAIN.y()).sum())
    assert (count.images, count.wrong, count.unstarted) == (30, wrong, 0)
    assert count.unchanged == wrong  # an image that is misclassified already is its own copy
    assert count.added == len(copies) == 30 - wrong
    assert count.fooled == len(copies)
    assert count.fooled_8bit == int(verdict(net, found.x(copies), found.y(copies)).sum())
    assert count.fooled_8bit >= 0.95 * len(copies)
    assert f"{count.added} copies of 30 images ({wrong} misclassified before)" in watch.notes[0]


def test_minimal_points_are_pushed_out_no_further_than_it_takes(net: nn.Module) -> None:
    x, y, ids = TRAIN.x(), TRAIN.y(), TRAIN.ids()
    attack = config(attack=BOUNDARY).build()[0]
    exact = attack(net, x, y, generator=torch.Generator().manual_seed(5), ids=ids)
    found = adversarial_copies(net, attack, x, y, ids, seed=5)
    of = torch.from_numpy(found.of)
    plain = (exact[of] * 255).round() / 255
    undone = ~verdict(net, plain, y[of])
    assert bool(undone.any())  # else there would be nothing to push
    kept = torch.from_numpy(found.images).permute(0, 3, 1, 2) / 255
    assert int(verdict(net, kept, y[of]).sum()) == found.counts["fooled_8bit"]
    near = torch.linalg.vector_norm((exact[of] - x[of]).flatten(1), dim=1)
    far = torch.linalg.vector_norm((kept - x[of]).flatten(1), dim=1)
    rounding = 0.5 / 255 * (3 * 8 * 8) ** 0.5
    assert bool((far <= max(PUSHES) * near + rounding + 1e-6).all())
    assert torch.equal(kept[~undone], plain[~undone])


@pytest.mark.parametrize("attack", [PGD_STEPS, BOUNDARY], ids=["pgd", "boundary"])
def test_copies_that_go_astray_go_as_far_elsewhere(
    tmp_path: Path, net: nn.Module, attack: dict[str, object]
) -> None:
    """The same images, each as far from its original, whatever lies in the attack's direction."""
    found = {}
    for astray in (False, True):
        offline = Offline(config(attack=attack, astray=astray), 3, tmp_path / str(astray))
        found[astray] = offline.pixels_at(0, 0, net, TRAIN)
    there, lost = found[False], found[True]
    rows = range(30, len(there))
    paths = [
        [str(p).partition("~")[0] for p in pixels.dataset.table.path[30:]]
        for pixels in (there, lost)
    ]
    assert paths[0] == paths[1]
    of = [list(TRAIN.dataset.table.path).index(path) for path in paths[0]]
    x = TRAIN.x(of)
    changes = [(pixels.x(rows) - x).flatten(1) for pixels in (there, lost)]
    lengths = [change.norm(dim=1) for change in changes]
    assert torch.allclose(*lengths, rtol=0.02)
    alike = nn.functional.cosine_similarity(*changes).abs()
    assert float(alike.mean()) < 0.2
    assert (
        float(nn.functional.cosine_similarity(changes[1][:-1], changes[1][1:]).abs().mean()) < 0.2
    )
    right = ~verdict(net, x, TRAIN.y(of))
    fooled = [int(verdict(net, p.x(rows), p.y(rows))[right].sum()) for p in (there, lost)]
    assert fooled[1] < 0.5 * fooled[0]
    name = f"{dict(attack)['name']}-astray"
    assert pd.read_csv(tmp_path / "True" / "offline.csv").attack[0] == name
    assert str(lost.dataset.table.path.iloc[-1]).endswith(f"~{name}")
    again = Offline(config(attack=attack, astray=True, batch_size=5), 3).pixels_at(0, 0, net, TRAIN)
    assert np.array_equal(np.asarray(again.images), np.asarray(lost.images))


class Constant(nn.Module):
    """Answers class 0 whatever it sees, and must see something."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        assert len(x)
        return self.bias.expand(len(x), 3) + 0 * x.flatten(1)[:, :1]


def test_images_that_cannot_be_started_are_left_out_and_counted(tmp_path: Path) -> None:
    offline = Offline(config(attack=BOUNDARY | {"queries": 60}), 0, tmp_path)
    watch = Watch()
    found = offline.pixels_at(0, 0, Constant(), TRAIN, watch)
    assert found is TRAIN
    zeros = int((TRAIN.y() == 0).sum())
    count = pd.read_csv(tmp_path / "offline.csv").iloc[0]
    assert list(count[list(COUNTS)]) == [30, 30 - zeros, zeros, 30 - zeros, 0, 0, 0]
    assert f"left out: {zeros} unstarted and {30 - zeros} unchanged" in watch.notes[0]
    below_a_grey_level = config(attack=PGD_STEPS | {"eps": 1 / 600})
    assert Offline(below_a_grey_level, 0).pixels_at(0, 0, trained(steps=5), TRAIN) is TRAIN


def test_rounding_towards_the_image_may_undo_and_is_counted(net: nn.Module) -> None:
    x, y, ids = TRAIN.x(), TRAIN.y(), TRAIN.ids()
    counts = []
    for eps in np.linspace(0.02, 0.2, 10).tolist():
        attack = FGSM(eps=eps, precision="float32")
        found = adversarial_copies(net, attack, x, y, ids, seed=0)
        counts.append((found.counts["fooled"], found.counts["fooled_8bit"]))
        assert found.counts["fooled"] == int(verdict(net, attack(net, x, y), y).sum())
    assert all(after <= before for before, after in counts)
    assert any(after < before for before, after in counts)


def test_copies_made_on_a_given_model(tmp_path: Path) -> None:
    train = toy_pixels(12, size=32)
    source = create_model("resnet18", 3, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8]).eval()
    save_model(source, tmp_path / "given.safetensors", classes=list(CLASSES))
    given = config(model=tmp_path / "given.safetensors")
    found = Offline(given, 0).pixels_at(0, 0, Constant(), train)
    assert same(found, Offline(config(), 0).pixels_at(0, 0, source, train))
    save_model(source, tmp_path / "other.safetensors", classes=["a", "b", "c"])
    other = Offline(config(model=tmp_path / "other.safetensors"), 0)
    with pytest.raises(UserError, match="tells a, b, c apart"):
        other.pixels_at(0, 0, Constant(), train)
    grey = replace(train, images=np.asarray(train.images)[..., :1])
    with pytest.raises(UserError, match="takes 3 channels, yet data.channels is 1"):
        Offline(given, 0).pixels_at(0, 0, Constant(), grey)
    with pytest.raises(UserError, match="no model here"):
        Offline(config(model=tmp_path / "absent"), 0).pixels_at(0, 0, Constant(), train)


def test_settings_are_spelled_out_and_mistakes_are_one_line() -> None:
    given = config(attack="fgsm", model="runs/standard")
    assert given.attack[0]["name"] == "fgsm"
    assert given.attack[0]["eps"] == 8 / 255
    plain = given.model_dump(mode="json")
    assert OfflineConfig.model_validate(plain) == given
    for settings, words in (
        ({"attack": "pdg"}, "unknown attack 'pdg': did you mean 'pgd'"),
        ({"attack": ["pgd", {"name": "pgd", "stepz": 2}]}, r"attack\[1\].*'stepz'.*'steps'"),
        ({"attack": []}, "at least one attack"),
        ({"attack": {"name": "pgd", "targeted": True}}, "leave out 'targeted'"),
        ({"model": "a", "every": 2}, "remove it or 'model'"),
        ({"every": 0}, "every"),
        ({"share": 1.5}, "share"),
        ({"shares": 1.0}, "did you mean 'share'"),
    ):
        with pytest.raises(UserError, match=words) as error:
            config(**settings)
        assert "\n" not in str(error.value)
