"""Train a classifier by a protocol, and ask it: the same few lines for every network and every direction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from veilset.core.errors import DataError
from veilset.core.memory import keep_pages
from veilset.evaluation.protocols import CNN_PROTOCOL, Protocol

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images

LOGREG_ITERATIONS = 60
LOGREG_NUMBERS = 60_000 * 784  # pixels held as float32 at once: 190 MB
PART = 32  # images of a batch whose gradient is taken at once, where that is quicker
SHIFT, SCALE, TURN = 4, 0.2, 45  # of the augmentations: pixels, relative size, degrees


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator starts from `seed`; afterwards it is as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the GPUs
        yield


def to_network(x: torch.Tensor) -> torch.Tensor:
    """uint8 [N, C, H, W] to float32 in [-1, 1], channels last."""
    import torch

    return x.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def to_rows(x: torch.Tensor) -> Any:
    """uint8 [N, C, H, W] to a float32 array [N, C*H*W] in [0, 1]."""
    return x.flatten(1).float().div_(255).numpy()


# ---------------------------------------------------------------------- networks


def train(network: str, images: Images, seed: int, protocol: Protocol = CNN_PROTOCOL) -> torch.nn.Module:
    """Train a network by a protocol and return it in evaluation mode; it reads pixels in [-1, 1].

    Each epoch visits the images in a new order; batches run on across epochs, so no image is left out but the last few.
    Convolutions run in bfloat16 where the processor is quicker in it; loss, weights and optimiser stay float32.

    Args:
        network: a name of `networks.architectures.make_network`.
        images: at least one image.
        seed: fixes initial weights, order, dropout and augmentation; torch's own random state is left as it was.
        protocol: the schedule.

    Raises:
        DataError: too few images to hold some out, or the loss is no longer finite.
    """
    import torch
    from torch.nn import functional as F

    from veilset.networks.architectures import InstanceNorm, Standardised, make_network
    from veilset.networks.precision import fast

    keep_pages()
    shape = (images.x.shape[1], images.x.shape[2], images.x.shape[3])
    kept, held = _held_out(images, seed, protocol)
    n, batch, steps = len(kept), protocol.batch_of(len(kept)), protocol.steps(len(kept))
    with seeded(seed), torch.enable_grad():
        net: torch.nn.Module = make_network(network, shape, len(images.classes))
        if protocol.standardise:
            net = Standardised(net, kept.x)
        # Networks that normalise each image for itself are quicker in plain order, and a few images at a time: their
        # maps then stay in the processor's cache. The gradient of a batch is the same.
        plain = any(isinstance(m, InstanceNorm) for m in net.modules())
        memory, part = (torch.contiguous_format, PART) if plain else (torch.channels_last, batch)
        net = net.to(memory_format=memory).train()  # type: ignore[call-overload]
        optimizer, decay = _optimizer(net, protocol, steps)
        best = _Best(net, held, protocol, max(1, n // batch))
        order = torch.cat([torch.randperm(n) for _ in range(-(-steps * batch // n))])
        for step, chosen in enumerate(order[: steps * batch].split(batch), start=1):
            x = augmented(to_network(kept.x[chosen]), protocol.augment).contiguous(memory_format=memory)
            optimizer.zero_grad()
            loss = torch.zeros(())
            for few, labels in zip(x.split(part), kept.y[chosen].split(part), strict=True):
                with fast():
                    logits = net(few)
                mean = F.cross_entropy(logits.float(), labels) * (len(few) / len(x))
                mean.backward()
                loss += mean.detach()
            optimizer.step()
            decay.step()
            if best.stops(step):
                break
    if not torch.isfinite(loss):
        raise DataError(
            f"{network} diverged under protocol {protocol.name}: its loss is {loss.item()}; use another one"
        )
    return best.restore().eval()


def _held_out(images: Images, seed: int, protocol: Protocol) -> tuple[Images, Images | None]:
    """(training images, held-out images or None). Without a hold-out no random number is drawn."""
    import torch

    if not protocol.holdout:
        return images, None
    count = round(protocol.holdout * len(images))
    if not 1 <= count < len(images):
        raise DataError(
            f"protocol {protocol.name} holds out {protocol.holdout:.0%} of the images, which leaves none of "
            f"{len(images)} on one side; sample more images, or use the protocol {CNN_PROTOCOL.name}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order[count:]], images[order[:count]]


def _optimizer(net: torch.nn.Module, p: Protocol, steps: int) -> tuple[Any, Any]:
    """(optimiser, its learning rate schedule in steps)."""
    import torch

    if p.optimizer == "adam":
        optimizer: Any = torch.optim.Adam(net.parameters(), p.rate, weight_decay=p.weight_decay)
    else:
        optimizer = torch.optim.SGD(net.parameters(), p.rate, momentum=0.9, weight_decay=p.weight_decay)
    if p.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    never = steps + 1
    at = max(1, round(p.drop * steps)) if p.schedule == "drop" else never
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [at], 0.1)


class _Best:
    """The weights of the epoch that is best on held-out images; without any, the last ones."""

    def __init__(self, net: torch.nn.Module, held: Images | None, protocol: Protocol, epoch: int):
        self.net, self.held, self.protocol, self.epoch = net, held, protocol, epoch
        self.value, self.since = -1.0, 0
        self.weights: dict[str, torch.Tensor] | None = None

    def stops(self, step: int) -> bool:
        """Look at the end of each epoch; True when patience is over."""
        if self.held is None or step % self.epoch:
            return False
        self.net.eval()
        right = predict(self.net, self.held.x) == self.held.y
        self.net.train()
        self.since += 1
        if (value := right.double().mean().item()) > self.value:
            self.value, self.since = value, 0
            self.weights = {k: v.clone() for k, v in self.net.state_dict().items()}
        return bool(self.protocol.patience) and self.since >= self.protocol.patience

    def restore(self) -> torch.nn.Module:
        """The network with its best weights."""
        if self.weights is not None:
            self.net.load_state_dict(self.weights)
        return self.net


def augmented(x: torch.Tensor, how: str) -> torch.Tensor:
    """Move each image a little, with random numbers of its own.

    "crop-scale-rotate" (Private Set Generation): one of the three per image: shift by up to 4 pixels, scale each side
    by 0.8 to 1.2, or turn by up to 45 degrees; what comes in from outside is the mean of the batch.
    "crop-flip" (GS-WGAN): shift by up to 4 pixels over black, then mirror half of the images.

    Args:
        x: float [B, C, H, W] in [-1, 1].
        how: as in `Protocol.augment`.
    """
    import torch
    from torch.nn import functional as F

    if how == "none":
        return x
    b, _, high, wide = x.shape
    move = torch.zeros(b, 2, 3)
    move[:, 0, 0] = move[:, 1, 1] = 1
    pixels = torch.randint(-SHIFT, SHIFT + 1, (b, 2)) * 2 / torch.tensor([wide, high])
    if how == "crop-flip":
        move[:, :, 2] = pixels
        move[:, 0, 0] -= 2 * torch.randint(0, 2, (b,))
        outside = torch.tensor(-1.0)
    else:
        kind = torch.randint(0, 3, (b,))
        angle = (torch.rand(b) * 2 - 1) * TURN * torch.pi / 180
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(b, 2, 2)
        sides = torch.diag_embed(1 / (1 - SCALE + 2 * SCALE * torch.rand(b, 2)))
        move[kind == 0, :, 2] = pixels[kind == 0]
        move[kind == 1, :, :2] = sides[kind == 1]
        move[kind == 2, :, :2] = turn[kind == 2]
        outside = x.mean()
    grid = F.affine_grid(move, list(x.shape), align_corners=False)
    moved = F.grid_sample(x - outside, grid, align_corners=False)
    return (moved + outside).contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------------- logistic regression


def train_logreg(images: Images, seed: int) -> Any:
    """Multinomial logistic regression on pixels in [0, 1]: scikit-learn's L-BFGS, C = 1, 60 iterations, all images.

    60 iterations are short of convergence and serve as a fixed early stop (9 s for 60,000 images of 28x28 on one core).
    No seed enters, except that above 47 million pixel values a random part of the images is used to bound memory.

    Args:
        images: at least two classes must occur.
        seed: chooses the part, where one is needed.

    Raises:
        DataError: only one class occurs.
    """
    import warnings

    import torch
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = images.y.unique()
    if len(present) < 2:
        names = ", ".join(images.classes[k] for k in present.tolist()) or "none"
        raise DataError(
            f"images hold the classes: {names}; logistic regression needs at least two, sample more classes"
        )
    most = logreg_images(images)
    if most < len(images):
        images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=LOGREG_ITERATIONS).fit(to_rows(images.x), images.y.numpy())


def logreg_images(images: Images) -> int:
    """How many of these images `train_logreg` uses."""
    return min(len(images), LOGREG_NUMBERS // images.x[0].numel())


def train_any(classifier: str, images: Images, seed: int, protocol: Protocol | None) -> Any:
    """Train a classifier of `protocols.CLASSIFIERS`; `protocol` is not used by logistic regression."""
    if classifier == "logreg":
        return train_logreg(images, seed)
    return train(classifier, images, seed, protocol or CNN_PROTOCOL)


# ---------------------------------------------------------------------- asking


def probabilities(model: Any, x: torch.Tensor, classes: int) -> torch.Tensor:
    """What a classifier of this module says about uint8 images [N, C, H, W]: float64 [N, classes], rows of sum 1.

    A class that logistic regression never saw has probability 0.
    """
    import torch

    if isinstance(model, torch.nn.Module):
        return _each(x, lambda part: model(to_network(part)).double().softmax(1))
    out = torch.zeros(len(x), classes, dtype=torch.float64)
    seen = torch.from_numpy(model.classes_)
    for i in range(0, len(x), 10_000):
        out[i : i + 10_000, seen] = torch.from_numpy(model.predict_proba(to_rows(x[i : i + 10_000]))).double()
    return out


def predict(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Labels int64 [N] that a classifier of this module gives to uint8 images [N, C, H, W]."""
    import torch

    if isinstance(model, torch.nn.Module):
        return _each(x, lambda part: model(to_network(part)).argmax(1))
    return torch.cat([torch.from_numpy(model.predict(to_rows(part))) for part in x.split(10_000)])


def _each(x: torch.Tensor, f: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    import torch

    from veilset.networks.precision import fast

    with torch.no_grad(), fast():
        return torch.cat([f(part) for part in x.split(1000)])
