"""Random numbers that belong to an image, not to the batch it stands in.

Every number is a hash of (seed, image id, stream, position): the same for an image whatever
the batch size, the order, the device or the number of workers. The generator is the 32-bit
finaliser of MurmurHash3 (Appleby 2011), keyed three times; computed in int32 lanes
with wrapping products, so that it runs as plain tensor arithmetic on any device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_M1, _M2 = 0x85EBCA6B, 0xC2B2AE35


def _signed(value: int) -> int:
    """Return the signed 32-bit integer with the bits of `value`."""
    return (value & _MASK) - ((value & 0x80000000) << 1)


def _mix(h: Tensor) -> Tensor:
    """Return MurmurHash3's 32-bit finaliser of int32 `h`; products wrap, shifts are logical."""
    h = (h ^ ((h >> 16) & 0xFFFF)).mul_(_signed(_M1))
    h = h.bitwise_xor_((h >> 13) & 0x7FFFF).mul_(_signed(_M2))
    return h.bitwise_xor_((h >> 16) & 0xFFFF)


def _mix_int(h: int) -> int:
    h &= _MASK
    h = ((h ^ (h >> 16)) * _M1) & _MASK
    h = ((h ^ (h >> 13)) * _M2) & _MASK
    return h ^ (h >> 16)


def stable_id(text: str) -> int:
    """Return a 63-bit integer that stands for `text`, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def derive(seed: int, *keys: int | str) -> int:
    """Return a 63-bit seed derived from `seed` and `keys`, the same in every process."""
    return stable_id("/".join(str(part) for part in (seed, *keys)))


@dataclass(frozen=True)
class Noise:
    """Random tensors for a batch of images: `seed` an integer, `ids` int64 of shape (B,)."""

    seed: int
    ids: Tensor

    @classmethod
    def of(cls, x: Tensor, generator: torch.Generator | None, ids: Tensor | None) -> Noise:
        """Return the noise of batch `x`: its seed drawn from `generator` (or torch's own).

        Without `ids` the images are numbered by their place in the batch.
        """
        device = generator.device if generator is not None else "cpu"
        seed = int(torch.randint(2**62, (1,), generator=generator, device=device).item())
        if ids is None:
            ids = torch.arange(len(x))
        return cls(seed, ids.to(x.device))

    def take(self, rows: Tensor) -> Noise:
        """Return the noise of some of the images."""
        return Noise(self.seed, self.ids[rows])

    def bits(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Return int32 values of any bit pattern, shape (B, *shape), of the numbered `stream`."""
        first = _mix_int(
            self.seed & _MASK ^ _mix_int((self.seed >> 32) + 0x9E3779B9 * (stream + 1))
        )
        second = _mix_int(first + 0x7F4A7C15)
        low, high = (self.ids & _MASK).to(torch.int32), (self.ids >> 32).to(torch.int32)
        image = _mix(_mix(low ^ _signed(first)) + high)  # (B,)
        image2 = _mix(_mix(high ^ _signed(second)) + low)  # two keys: no seed repeats another's
        place = torch.arange(math.prod(shape), device=self.ids.device, dtype=torch.int32)  # (n,)
        h = _mix(_mix(place)[None] ^ image[:, None]).add_(image2[:, None])
        return _mix(h).view(len(self.ids), *shape)

    def uniform(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Return float32 values in [0, 1), shape (B, *shape)."""
        return ((self.bits(shape, stream) >> 8) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24)

    def normal(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Return float32 standard normal values, shape (B, *shape) (Box and Muller 1958).

        Each pair of uniform values makes two of them, half of the places apart.
        """
        count = math.prod(shape)
        half = (count + 1) // 2
        u = 1.0 - self.uniform((half,), 2 * stream + 1_000_003)  # (0, 1]
        angle = self.uniform((half,), 2 * stream + 1_000_004).mul_(2 * math.pi)
        radius = u.log_().mul_(-2.0).sqrt_()
        pair = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
        return pair[:, :count].reshape(len(self.ids), *shape)
