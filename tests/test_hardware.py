"""What a machine is said to gain from."""

from __future__ import annotations

import pytest
import torch

from diascope import hardware

AMX, AVX512_BF16 = "_is_amx_tile_supported", "_is_avx512_bf16_supported"


@pytest.mark.parametrize(
    ("units", "gains", "precision"),
    [
        ((), False, "32-true"),
        ((AVX512_BF16,), True, "32-true"),  # the gradients of weights cannot be relied on there
        ((AMX, AVX512_BF16), True, "bf16-mixed"),
    ],
)
def test_attacks_take_bfloat16_where_it_is_faster_and_training_where_it_is_right(
    monkeypatch, units, gains, precision
):
    monkeypatch.setattr(hardware, "_has", lambda unit: unit in units)
    cpu = torch.device("cpu")
    assert hardware.gains_from_bf16(cpu) is gains
    assert hardware.best_precision(cpu) == precision
    assert not hardware.gains_from_bf16(torch.device("mps"))


def test_the_units_asked_for_are_those_that_torch_tells_of():
    assert all(hasattr(torch.cpu, unit) for unit in (AMX, AVX512_BF16))
    assert hardware._AVX512_BF16 == AVX512_BF16
