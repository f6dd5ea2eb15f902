from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.nets import images, small_net

from diascope.attacks import PGD, robustness_curve
from diascope.attacks.resume import digest
from diascope.errors import UserError

GRID = [0.02, 0.04, 0.06, 0.08, 0.1, 0.12]


def standard():
    return small_net(seed=5).double()


def counted(model):
    """Return a list to which every forward of the model, or of a copy of it, adds its images."""
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    return seen


def resumable(path, model=None, progress=None, seed=0, x=None, **options):
    """Compute the curve that the tests of resuming are about."""
    model, x = model or standard(), images(24).double() if x is None else x
    settings = {"attack": PGD(norm="linf", steps=3), "epsilons": GRID, "keep_x_adv": True}
    settings |= options
    return robustness_curve(
        model,
        x,
        torch.arange(24) % 3,
        batch_size=3,
        chunk=6,
        checkpoint=path,
        progress=progress,
        generator=torch.Generator().manual_seed(seed),
        **settings,
    )


CHILD = """
import time
from pathlib import Path
from tests.attacks.test_resume import resumable

path, told = Path({path!r}), []

def progress(count):
    told.append(count)
    if sum(told) > 15 * 6:  # in the third of four chunks
        time.sleep(600)

resumable(path, progress=progress)
"""


def test_resumes_where_a_killed_process_was(tmp_path):
    path = tmp_path / "curve.safetensors"
    code, root = CHILD.format(path=str(path)), Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    try:
        until = time.monotonic() + 120
        while sum(1 for _ in tmp_path.iterdir()) != 1 or _done(path) != 12:
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
    whole, part, told = standard(), standard(), []
    all_forwards, forwards = counted(whole), counted(part)
    expected = resumable(None, model=whole)
    found = resumable(path, model=part, progress=told.append)
    for name in ("minimal_epsilon", "x_adv"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-9, rtol=0)
    for name in ("attacked", "carried", "not_finite"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert told[0] == 12 * len(GRID)
    assert sum(told) == 24 * len(GRID)
    assert 0 < sum(forwards) < 0.75 * sum(all_forwards)
    forwards.clear()
    resumable(path, model=part)
    assert sum(forwards) <= 2  # the look at how the model runs


def _done(path):
    return int(load_file(path)["done"].sum()) if path.exists() else 0


def test_a_checkpoint_of_other_inputs_is_refused(tmp_path):
    path = tmp_path / "curve.safetensors"
    first = resumable(path)
    changed = standard()
    with torch.no_grad():
        changed[1].running_mean[0] += 1e-3  # a buffer
    for name, options in {
        "model": {"model": changed},
        "seed": {"seed": 1},
        "images": {"x": images(24, seed=1).double()},
        "attack": {"attack": PGD(norm="linf", steps=4)},
        "epsilons": {"epsilons": GRID[1:]},
        "options": {"refine": 1},
    }.items():
        with pytest.raises(UserError, match=rf"curve.safetensors: .*\({name}\)") as error:
            resumable(path, **options)
        assert "\n" not in str(error.value)
    assert torch.equal(resumable(str(path)).minimal_epsilon, first.minimal_epsilon)
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match="cannot be read"):
        resumable(path)


def test_a_digest_stands_for_the_value_alone():
    net = small_net()
    assert digest(net) == digest(small_net()) != digest(small_net(seed=1))
    wider = small_net()
    wider[3].stride = (1, 1)
    assert digest(wider) != digest(net)
    x = images(2)
    assert digest(x) == digest(x.to(memory_format=torch.channels_last)) != digest(x.double())
    assert digest(x) != digest(x.flatten(1))
    assert digest([1, 2]) != digest([12])
    assert digest(PGD(eps=x[:, 0, 0, 0])) != digest(PGD(eps=x[:, 0, 0, 1]))
    assert digest(torch.tensor(True)) != digest(torch.tensor(False))
