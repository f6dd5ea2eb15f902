from __future__ import annotations

import subprocess
import sys

import torch
from scipy import stats

from diascope.randomness import Noise, derive, stable_id

IDS = torch.tensor([0, 1, 2, 2**40 + 5, 2**62 + 17])


def test_uniform_and_normal_have_their_distributions():
    noise = Noise(7, torch.arange(20))
    assert stats.kstest(noise.uniform((2000,)).flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(noise.normal((2000,)).flatten().numpy(), "norm").pvalue > 1e-3
    for shape in ((3, 5, 5), (1,), (7,)):
        assert noise.normal(shape).shape == (20, *shape)
    halves = noise.normal((2000,)).view(20, 2, 1000)  # made in pairs, which share a radius
    for transform in (lambda z: z, torch.abs, torch.square):
        both = torch.stack([transform(halves[:, i]).flatten() for i in range(2)])
        assert abs(torch.corrcoef(both)[0, 1]) < 5 / 20_000**0.5
    assert noise.uniform((2000,)).min() >= 0
    assert noise.uniform((2000,)).max() < 1


def test_images_streams_seeds_and_places_are_independent():
    n = 4096
    rows = [Noise(seed, IDS).uniform((n,), stream) for seed in (0, 1, 2**40) for stream in (0, 1)]
    table = torch.cat(rows)
    correlation = torch.corrcoef(table) - torch.eye(len(table))
    assert correlation.abs().max() < 5 / n**0.5
    shifted = torch.corrcoef(torch.stack([table[0, :-1], table[0, 1:]]))[0, 1]
    assert abs(shifted) < 5 / n**0.5


def test_an_image_has_its_numbers_in_any_batch():
    whole = Noise(3, IDS).normal((3, 5, 5))
    alone = torch.cat([Noise(3, IDS[i : i + 1]).normal((3, 5, 5)) for i in range(len(IDS))])
    assert torch.equal(whole, alone)
    assert torch.equal(Noise(3, IDS).take(torch.tensor([4, 1])).normal((3, 5, 5)), whole[[4, 1]])


def test_the_same_in_every_process():
    code = (
        "import torch; from diascope.randomness import *;"
        "print(stable_id('a/b.jpg'), derive(1, 'x', 2), Noise(9, torch.tensor([5])).bits((2,)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = f"{stable_id('a/b.jpg')} {derive(1, 'x', 2)} {Noise(9, torch.tensor([5])).bits((2,))}"
    assert out.stdout.strip() == here
    assert stable_id("a") != stable_id("b")
    assert derive(1, "x") != derive(1, "y") != derive(2, "x")
    assert 0 <= stable_id("a") < 2**63
