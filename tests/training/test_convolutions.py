"""Convolutions in training: past kernels whose gradients of weights are wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from diascope.objectives import Standard
from diascope.training import TrainingConfig, convolutions, fit
from diascope.training.convolutions import SoundConvolutions, _all_taps_meet

from .toy import toy_pixels

NARROW = [  # side, kernel, stride, padding, dilation
    (1, 3, 2, 1, 1),
    (1, 3, 1, 1, 1),
    (2, 3, 3, 1, 1),
    (2, 3, 2, 1, 1),
    (2, 7, 1, 3, 1),
    (2, 3, 1, 2, 2),
]
WIDE = [(2, 3, 1, 1, 1), (4, 3, 2, 1, 1), (7, 7, 2, 3, 1), (1, 1, 1, 0, 1), (3, 3, 1, 2, 2)]


def low(narrow: bool = True):
    """Autocast to bfloat16, as training enters it."""
    cast = torch.autocast("cpu", torch.bfloat16)
    return (cast, SoundConvolutions()) if narrow else (cast, torch.enable_grad())


def convolved(x, conv, **options):
    cast, mode = low(**options)
    with cast, mode:
        return conv(x)


@pytest.mark.parametrize("shape", NARROW + WIDE)
def test_a_narrow_convolution_is_float32s_and_others_are_left_to_autocast(shape):
    side, kernel, stride, padding, dilation = shape
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation)
    x = torch.randn(2, 4, side, side)
    out = convolved(x, conv)
    if shape in WIDE:
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, convolved(x, conv, narrow=False))
        return
    assert torch.equal(out, conv(x))
    (gradient,) = torch.autograd.grad(out.sum(), conv.weight)
    assert torch.equal(gradient, torch.autograd.grad(conv(x).sum(), conv.weight)[0])


@pytest.mark.parametrize("shape", [(4, 1, 5), (4, 5, 1), (2, 4, 5, 1)])
def test_one_short_side_is_enough_with_or_without_a_batch(shape):
    conv, x = nn.Conv2d(4, 8, 3, 2, 1), torch.randn(shape)
    assert torch.equal(convolved(x, conv), conv(x))


def test_what_does_not_learn_is_left_to_autocast():
    conv, x = nn.Conv2d(4, 8, 3, 2, 1), torch.randn(2, 4, 1, 1)
    with torch.no_grad():
        assert convolved(x, conv).dtype == torch.bfloat16
    conv.requires_grad_(False)
    assert convolved(x.requires_grad_(), conv).dtype == torch.bfloat16
    with SoundConvolutions():  # no autocast: nothing to keep from it
        assert conv.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("stride", [2, 3, (2, 1), (1, 3), (2,)])
@pytest.mark.parametrize("options", [{}, {"padding": "valid"}, {"groups": 2}, {"padding": 1}])
@pytest.mark.parametrize("shape", [(2, 4, 7, 8), (4, 9, 6), (2, 4, 1, 1)])
def test_a_1x1_convolution_with_a_stride_is_the_same_without(shape, options, stride, monkeypatch):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    conv, strides = nn.Conv2d(4, 6, 1, stride, **options).double(), []
    true = conv(x)
    real = torch.conv2d

    def seen(*args):
        strides.append(args[3])
        return real(*args)

    monkeypatch.setattr(convolutions.torch, "conv2d", seen)
    out = convolutions._convolved(x, conv.weight, conv.bias, stride, conv.padding, 1, conv.groups)
    assert strides == [stride if conv.padding == (1, 1) else 1]
    inputs = (x, conv.weight, conv.bias)
    for found, expected in zip(
        (out, *torch.autograd.grad(out.square().sum(), inputs)),
        (true, *torch.autograd.grad(true.square().sum(), inputs)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_what_ends_a_process_in_torch_is_trained_through():
    """Without the mode this ended in a segmentation fault on two threads of an AMD EPYC."""
    script = """
import torch
from diascope.training.convolutions import SoundConvolutions
torch.set_num_threads(2)
x = torch.randn(7, 8, 14, 14).contiguous(memory_format=torch.channels_last)
weight = torch.randn(8, 8, 1, 1, requires_grad=True)
with SoundConvolutions():
    for _ in range(300):
        torch.autograd.grad(torch.conv2d(x, weight, stride=2).sum(), weight)
        held = [torch.rand(64 << i) for i in range(8)]
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_in_the_backward_pass_is_computed_so_too(reentrant, monkeypatch):
    conv, x = nn.Conv2d(4, 6, 1, 2), torch.randn(2, 4, 8, 8, requires_grad=True)
    real, seen = convolutions._every, []
    monkeypatch.setattr(convolutions, "_every", lambda *args: seen.append(args) or real(*args))
    with SoundConvolutions():
        out = checkpoint(conv, x, use_reentrant=reentrant)
        out.square().sum().backward()
    assert len(seen) == (1 if reentrant else 2)  # without a graph at first, where it is reentrant
    found = conv.weight.grad.clone()
    conv.zero_grad()
    conv(x).square().sum().backward()
    torch.testing.assert_close(found, conv.weight.grad)


def test_any_other_backward_pass_is_torchs_own():
    x = torch.ones(3, requires_grad=True)
    with SoundConvolutions():
        (2 * x).backward(torch.tensor([1.0, 2.0, 3.0]))
        assert x.grad.tolist() == [2, 4, 6]
        with pytest.raises(RuntimeError, match="scalar"):
            (2 * x).backward()
        loss = x.square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    assert x.grad.tolist() == [6, 8, 10]


def test_every_way_to_name_the_options_is_understood():
    weight, x = torch.randn(8, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 2, 2)
    bias = torch.randn(8)
    cast, mode = low()
    with cast, mode:
        assert F.conv2d(x, weight, padding="same").dtype == torch.bfloat16
        assert F.conv2d(x, weight, bias, padding="same", dilation=2).dtype == torch.float32
        assert F.conv2d(x, weight[..., :1, :1], padding="valid").dtype == torch.bfloat16
        assert F.conv2d(input=x, weight=weight, stride=(3,), padding=(1, 1)).dtype == torch.float32
        already = F.conv2d(x.bfloat16(), weight, stride=3, padding=1)
    assert torch.equal(already, F.conv2d(x.bfloat16().float(), weight, stride=3, padding=1))


@pytest.mark.parametrize(
    ("groups", "kernel", "stride", "kept"),
    [(8, 3, 2, True), (8, 5, 1, True), (4, 3, 2, True), (8, 3, 1, False), (2, 5, 2, False)],
)
def test_depthwise_ones_with_a_stride_or_a_large_kernel_are_float32s(groups, kernel, stride, kept):
    conv = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    x = torch.randn(2, 8, 12, 12)
    out = convolved(x, conv)
    assert out.dtype == (torch.float32 if kept else torch.bfloat16)
    assert not kept or torch.equal(out, conv(x))


@given(
    st.integers(1, 9), st.integers(1, 7), st.integers(1, 4), st.integers(0, 6), st.integers(1, 3)
)
def test_taps_meet_pixels_where_a_gradient_of_ones_reaches_them(side, taps, stride, pad, apart):
    if side + 2 * pad < apart * (taps - 1) + 1:
        return
    weight = torch.zeros(1, 1, taps, dtype=torch.float64, requires_grad=True)
    out = F.conv1d(torch.ones(1, 1, side, dtype=torch.float64), weight, None, stride, pad, apart)
    (reached,) = torch.autograd.grad(out.sum(), weight)
    assert _all_taps_meet(side, taps, stride, pad, apart) == bool((reached > 0).all())


def test_training_in_bfloat16_goes_through_maps_of_one_pixel():
    """Where the last maps are one pixel wide a gradient that nothing has written would be NaN."""
    pixels = toy_pixels(48, size=8)
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(c, 16, 3, 2, 1) for c in (3, 16, 16)),  # 8 -> 4 -> 2 -> 1
        nn.Conv2d(16, 16, 3, 2, 1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    seen = []
    net[3].register_forward_hook(lambda module, given, out: seen.append((given[0].shape, out)))
    config = TrainingConfig(epochs=2, batch_size=8, precision="bf16-mixed", augment=None)
    result = fit(net, Standard(), pixels, pixels, config)
    assert {tuple(shape[2:]) for shape, _ in seen} == {(1, 1)}
    assert {out.dtype for _, out in seen if out.requires_grad} == {torch.float32}
    assert all(p.isfinite().all() for p in result.model.parameters())
