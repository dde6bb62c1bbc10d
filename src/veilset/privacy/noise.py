"""The only place where protecting randomness is drawn: noise, coins, and the draws that records have of their own.

Bits come from AES-256 in counter mode. In release mode the key is 256 fresh bits of the operating system, held in
memory only; in research mode it is derived from the seed, so that runs repeat bit for bit. torch's and NumPy's
generators are not used and do not influence it.
"""

from __future__ import annotations

import hashlib
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from veilset.core.facts import cores
from veilset.privacy.normal import rounded_normal

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
GENERATOR = "AES-256-CTR"
WORTH = 1 << 16  # values, below which drawing takes hardly longer than beginning a thread


class Stream:
    """An endless stream of bits for one purpose."""

    def __init__(self, key: bytes):
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def uint64(self, n: int) -> Array:
        """n independent uniform 64-bit integers."""
        return np.frombuffer(self._cipher.update(bytes(8 * n)), dtype=np.uint64)

    def below(self, n: int) -> int:
        """One of 0 to n - 1, all equally likely: what does not divide evenly is drawn again."""
        most = 2**64 // n * n
        while (drawn := int(self.uint64(1)[0])) >= most:
            pass
        return drawn % n

    def noise(self, n: int, std: float) -> Array:
        """n independent normals of deviation `std`, rounded to integers, int64: the protecting noise. 0 gives zeros."""
        return rounded_normal(self.uint64, n, std) if std else np.zeros(n, np.int64)

    def uniform(self, n: int) -> torch.Tensor:
        """n independent uniforms in [0, 1), float32, multiples of 2^-24. For draws inside losses: not for noise."""
        import torch

        halves = torch.from_numpy(self.uint64(-(-n // 2)).view(np.int32).copy())[:n]
        return halves.bitwise_and_(0xFFFFFF).float().mul_(2.0**-24)

    def normal(self, n: int) -> torch.Tensor:
        """n independent standard normals, float32, below 6, made in pairs. For draws inside losses: not for noise."""
        import torch

        half = -(-n // 2)
        radius = self.uniform(half).neg_().add_(1.0).log_().mul_(-2.0).sqrt_()  # of (0, 1]: the logarithm is finite
        angle = self.uniform(half).mul_(2 * np.pi)
        return torch.stack([angle.cos().mul_(radius), angle.sin_().mul_(radius)], 1).flatten()[:n]


class Keys:
    """One root key; every purpose (a release, a step) gets a stream of its own, so order does not matter.

    Args:
        seed: None for release mode; an integer for research mode.
    """

    def __init__(self, seed: int | None):
        self._begun: dict[tuple[str, int, float], Future[Array]] = {}
        self.research = seed is not None
        self._root = secrets.token_bytes(32) if seed is None else hashlib.sha256(b"veilset research %d" % seed).digest()

    def stream(self, purpose: str) -> Stream:
        """The stream of this purpose, from its beginning. Ask once for each purpose."""
        return Stream(hashlib.sha256(self._root + purpose.encode()).digest())

    def noise(self, purpose: str, n: int, std: float) -> Array:
        """`Stream.noise` of this purpose; what was begun for it is waited for."""
        begun = self._begun.pop((purpose, n, std), None)
        return begun.result() if begun else self.stream(purpose).noise(n, std)

    def begin(self, purpose: str, n: int, std: float) -> None:
        """Draw on an idle core what `noise` will be asked for: the same bits. Does nothing where there is one core."""
        if std and n >= WORTH and cores() > 1:
            # A thread for this alone, which ends with it: one that waits for more would be missing in a forked process.
            self._begun[purpose, n, std] = ThreadPoolExecutor(1).submit(self.stream(purpose).noise, n, std)
