"""What images are compared in: the features of a fixed, public network, or of a classifier trained on real images.

One path leads from images to every network: a grey image is repeated into three channels, 8-bit values are kept, and
the image is resized bilinearly (align_corners off) to the one side that the network gets.

* `inception`: side 299, no antialiasing, pixels in [-1, 1]: the path of pytorch-fid, whose weights file the user gives.
* `lite0`: side 64, antialiased when shrinking, (grey level - 127) / 128; weights come as an optional package.
* `domain`: a classifier trained on real images of the set by a fixed protocol; the images as they are. Its features are
  what its last layer reads.
* `gabor`: the fixed filters of `fidelity.features`; no network, no file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, DataError, suggest
from veilset.evaluation.protocols import CNN_PROTOCOL, GS_WGAN

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images

    Network = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]

LITE0_SIDE, SMALLEST_SPLIT = 64, 20
PIECES = {"inception": 32, "lite0": 64, "domain": 500, "gabor": 500}  # images a forward pass
DOMAIN = {"cnn": CNN_PROTOCOL, "lenet": CNN_PROTOCOL, "vgg11": GS_WGAN}  # network -> how it is trained


@dataclass(frozen=True)
class Tools:
    """What the caller hands over beside the images.

    Attributes:
        inception: the file of Inception weights, or None.
        inception_sha256: its hash; None means the public file of pytorch-fid. Figures made with another file carry the
            first digits of its hash in their name.
        domain: real images to train the domain classifier on; None trains on a fixed half of the set that the images
            are measured against, and then compares with the other half only.
        domain_network: "cnn", "lenet" or "vgg11" (the last one as in the papers, and slow).
    """

    inception: Path | None = None
    inception_sha256: str | None = None
    domain: Images | None = None
    domain_network: str = "cnn"

    def __post_init__(self) -> None:
        if self.domain_network not in DOMAIN:
            hint = suggest(self.domain_network, DOMAIN)
            raise ConfigError(f"domain_network = {self.domain_network!r}: unknown.{hint} Known: {', '.join(DOMAIN)}")
        digits = self.inception_sha256
        if digits is not None and (len(digits) != 64 or set(digits.lower()) - set("0123456789abcdef")):
            raise ConfigError(f"inception_sha256 = {digits!r}: must be 64 hexadecimal digits; see sha256sum")


@dataclass(frozen=True)
class Described:
    """Features float64 [N, D], and logits float64 [N, K] where the network classifies."""

    features: torch.Tensor
    logits: torch.Tensor | None


def reference(name: str, against: Images, tools: Tools) -> tuple[Images, Images | None]:
    """(real images to compare with, real images to train the domain classifier on or None).

    Raises:
        DataError: too few images to give a half away.
    """
    import torch

    if name != "domain":
        return against, None
    if tools.domain is not None:
        if tools.domain.classes != against.classes or tools.domain.x.shape[1:] != against.x.shape[1:]:
            raise DataError("domain has other classes or another shape than against: must be images of the same set")
        return against, tools.domain
    if len(against) < SMALLEST_SPLIT:
        raise DataError(
            f"domain got {len(against)} real images: a half of at least {SMALLEST_SPLIT} trains its classifier; "
            "give more, or other images to train on"
        )
    order = torch.randperm(len(against), generator=torch.Generator().manual_seed(0))
    return against[order[::2]], against[order[1::2]]


def network(name: str, tools: Tools, train_on: Images | None) -> Network:
    """The function from uint8 images [n, C, H, W] to (features, logits) of an extractor; heavy, so keep it.

    Raises:
        ConfigError: unknown name, or a file or package is missing. DataError: the file is not the one it should be.
    """
    makers: dict[str, Callable[[], Network]] = {
        "inception": lambda: _inception(tools),
        "lite0": _lite0,
        "domain": lambda: _domain(tools, train_on),
        "gabor": _gabor,
    }
    if name not in makers:
        raise ConfigError(f"extractor = {name!r}: unknown.{suggest(name, makers)} Known: {', '.join(makers)}")
    return makers[name]()


def describe(name: str, net: Network, x: torch.Tensor) -> Described:
    """Run an extractor over images in pieces.

    Args:
        name, net: of the extractor.
        x: uint8 [N, C, H, W].

    Raises:
        DataError: a feature is not finite.
    """
    import torch

    features, logits = [], []
    with torch.no_grad():
        for part in x.split(PIECES[name]):
            f, p = net(part)
            features.append(f.double())
            logits += [] if p is None else [p.double()]
    whole = torch.cat(features)
    if not torch.isfinite(whole).all():
        raise DataError(f"extractor {name} gave features that are not finite; its weights do not fit these images")
    return Described(whole, torch.cat(logits) if logits else None)


def facts(name: str, tools: Tools) -> dict[str, Any]:
    """What a reader needs to compare a figure made with this extractor."""
    from veilset.evaluation.weights import INCEPTION_SHA256, LITE0_SHA256

    if name == "inception":
        return {"weights": tools.inception_sha256 or INCEPTION_SHA256, "side": 299, "resize": "bilinear"}
    if name == "lite0":
        return {"weights": LITE0_SHA256, "side": LITE0_SIDE, "resize": "bilinear, antialiased"}
    if name == "domain":
        protocol = DOMAIN[tools.domain_network].name
        return {"network": tools.domain_network, "protocol": protocol, "trained_on": _trained_on(tools)}
    return {"side": 32, "resize": "bilinear, antialiased"}


def _trained_on(tools: Tools) -> str:
    return "half of against" if tools.domain is None else f"{len(tools.domain)} images given"


# ---------------------------------------------------------------------- the four


def in_colour(x: torch.Tensor, side: int, *, antialias: bool) -> torch.Tensor:
    """uint8 [N, C, H, W] to float32 grey levels [N, 3, side, side], channels last: the one path described above."""
    import torch
    from torch.nn import functional as F

    v = x.float().expand(-1, 3, -1, -1)
    if tuple(v.shape[2:]) != (side, side):
        v = F.interpolate(v, (side, side), mode="bilinear", align_corners=False, antialias=antialias)
    return v.contiguous(memory_format=torch.channels_last)


def _inception(tools: Tools) -> Network:
    import torch

    from veilset.evaluation.weights import INCEPTION_NAME, INCEPTION_SHA256, load_weights
    from veilset.networks.inception import SIDE, Inception

    if tools.inception is None:
        raise ConfigError(
            f"inception needs its weights: give the file {INCEPTION_NAME} of pytorch-fid (SHA-256 "
            f"{INCEPTION_SHA256[:8]}...) by --inception-weights, or use lite0"
        )
    net = load_weights(Inception(), tools.inception, tools.inception_sha256 or INCEPTION_SHA256)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: net(in_colour(x, SIDE, antialias=False).div_(127.5).sub_(1))


def _lite0() -> Network:
    import torch

    from veilset.evaluation.weights import LITE0_SHA256, lite0_file, load_weights
    from veilset.networks.lite0 import Lite0

    net = load_weights(Lite0(), lite0_file(), LITE0_SHA256)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: net(in_colour(x, LITE0_SIDE, antialias=True).sub_(127).div_(128))


def _domain(tools: Tools, train_on: Images | None) -> Network:
    from veilset.evaluation.training import to_network, train
    from veilset.networks.architectures import penultimate

    assert train_on is not None
    net = train(tools.domain_network, train_on, 0, DOMAIN[tools.domain_network])
    return lambda x: penultimate(net, to_network(x))


def _gabor() -> Network:
    from veilset.evaluation.fidelity import features

    return lambda x: (features(x), None)
