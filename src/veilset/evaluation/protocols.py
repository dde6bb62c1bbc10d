"""Networks and schedules, fixed once, so that two figures with the same protocol name can be compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from veilset.core.errors import DataError

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images
    from veilset.networks.classifiers import CNN

SMALLEST_BATCH, STEPS_AN_EPOCH = 16, 40
LOGREG_ITERATIONS = 60
LOGREG_NUMBERS = 60_000 * 784  # pixels held as float32 at once: 190 MB


@dataclass(frozen=True)
class Protocol:
    """How the CNN is trained: Adam with cosine decay to zero, last epoch, no selection.

    Attributes:
        name: stands beside every figure made with it; another schedule needs another name.
        epochs: passes over the training images, however many there are.
        batch: most images a step. Sets below forty batches use a fortieth of the set (at least 16), so that few images
            still get enough steps in the same number of epochs.
        rate: Adam's first learning rate.
    """

    name: str = "cnn-10-epochs"
    epochs: int = 10
    batch: int = 256
    rate: float = 1e-3

    def batch_of(self, images: int) -> int:
        """Images a step for a training set of this size: 256 for 60,000 images by default, 25 for 1,000."""
        return min(images, self.batch, max(SMALLEST_BATCH, images // STEPS_AN_EPOCH))

    def steps(self, images: int) -> int:
        """Optimiser steps for a training set of this size: 2,343 for 60,000 images by default, 400 for 1,000."""
        return self.epochs * images // self.batch_of(images)


CNN_PROTOCOL = Protocol()


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


def train_cnn(images: Images, seed: int, protocol: Protocol = CNN_PROTOCOL) -> CNN:
    """Train the CNN and return it in evaluation mode.

    Each epoch visits the images in a new order; batches run on across epochs, so no image is left out but the last few.
    Convolutions run in bfloat16 where the processor has it; loss, weights and Adam stay float32.

    Args:
        images: at least one image.
        seed: fixes initial weights, order and dropout; torch's own random state is left as it was.
        protocol: the schedule.
    """
    import torch
    from torch.nn import functional as F

    from veilset.networks.classifiers import CNN, fast_dtype

    n, dtype = len(images), fast_dtype()
    batch, steps = protocol.batch_of(n), protocol.steps(n)
    with seeded(seed), torch.enable_grad():
        net = CNN((images.x.shape[1], images.x.shape[2], images.x.shape[3]), len(images.classes))
        net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        adam = torch.optim.Adam(net.parameters(), protocol.rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        order = torch.cat([torch.randperm(n) for _ in range(protocol.epochs)])
        for chosen in order[: steps * batch].split(batch):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                logits = net(to_network(images.x[chosen]))
            adam.zero_grad()
            F.cross_entropy(logits.float(), images.y[chosen]).backward()
            adam.step()
            decay.step()
    return net.eval()


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


def predict(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Labels int64 [N] that a classifier of this module gives to uint8 images [N, C, H, W]."""
    import torch

    from veilset.networks.classifiers import fast_dtype

    if not isinstance(model, torch.nn.Module):
        return torch.cat([torch.from_numpy(model.predict(to_rows(part))) for part in x.split(10_000)])
    dtype = fast_dtype()
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        return torch.cat([model(to_network(part)).argmax(1) for part in x.split(1000)])
