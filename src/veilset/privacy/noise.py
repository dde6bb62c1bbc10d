"""The only place where protecting randomness is drawn.

Bits come from AES-256 in counter mode. In release mode the key is 256 fresh bits of the operating system, held in
memory only; in research mode it is derived from the seed, so that runs repeat bit for bit. torch's and NumPy's
generators are not used and do not influence it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import numpy as np

GENERATOR = "AES-256-CTR"
_BLOCK = 1 << 18  # normals made at a time, to bound memory


class Stream:
    """An endless stream of bits for one purpose."""

    def __init__(self, key: bytes):
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def uint64(self, n: int) -> np.ndarray[Any, Any]:
        """n independent uniform 64-bit integers."""
        return np.frombuffer(self._cipher.update(bytes(8 * n)), dtype=np.uint64)

    def normal(self, n: int) -> np.ndarray[Any, Any]:
        """n independent standard normals, float64, by Box and Muller from 53-bit uniforms."""
        import torch  # its logarithms and cosines are several times as fast as NumPy's

        out = np.empty(n + n % 2)
        for start in range(0, len(out), _BLOCK):
            z = torch.from_numpy(out[start : start + _BLOCK])
            half = len(z) // 2
            u = torch.from_numpy((self.uint64(2 * half) >> np.uint64(11)).astype(np.float64))
            radius = u[:half].add_(1.0).mul_(2.0**-53).log_().mul_(-2.0).sqrt_()  # of (0, 1]: the logarithm is finite
            angle = u[half:].mul_(2.0**-53 * 2.0 * np.pi)
            torch.mul(radius, angle.cos(), out=z[:half])
            torch.mul(radius, angle.sin_(), out=z[half:])
        return out[:n]


class Keys:
    """One root key; every purpose (a release, a step) gets a stream of its own, so order does not matter.

    Args:
        seed: None for release mode; an integer for research mode.
    """

    def __init__(self, seed: int | None):
        self.research = seed is not None
        self._root = secrets.token_bytes(32) if seed is None else hashlib.sha256(b"veilset research %d" % seed).digest()

    def stream(self, purpose: str) -> Stream:
        """The stream of this purpose, from its beginning. Ask once for each purpose."""
        return Stream(hashlib.sha256(self._root + purpose.encode()).digest())
