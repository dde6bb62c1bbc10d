"""What the adversarial methods share: generated images for the critic, their clipped gradient, the generator's step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from veilset.core.errors import RunError
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import average, descend
from veilset.methods.base import State
from veilset.methods.stages import Asked, Earlier, Single, Stage
from veilset.networks.critics import class_loss, fake_loss, generator_loss, real_loss, score
from veilset.networks.gan_generators import Codes, settle
from veilset.networks.precision import fast
from veilset.privacy.draws import Uniform
from veilset.privacy.gradients import Clipped, Loss, Total
from veilset.privacy.run.run_store import RunStore
from veilset.privacy.spec import Privacy

POOL = 1000  # generated images that the critic steps between two generator steps share


class Fakes:
    """Generated images by class, drawn again after each step of the generator; critic steps between share them.

    Args:
        classes: number of classes K.
        each: images per class.
        shape: (C, H, W).
        device: where they lie.
        codes: what draws latent codes.
    """

    def __init__(self, classes: int, each: int, shape: tuple[int, int, int], device: str, codes: Codes = torch.randn):
        self.codes = codes
        self.x = torch.zeros(classes, each, *shape, device=device)
        self.y = torch.arange(classes, device=device).repeat_interleave(each)

    @torch.no_grad()
    def renew(self, generator: Any) -> None:
        """Draw all of them from the generator as it is now."""
        with fast():
            self.x = generator(self.codes(len(self.y), generator.code, device=self.y.device), self.y).view_as(self.x)

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """n of them with labels from the uniform prior: [n, C, H, W] and [n]."""
        i = torch.randint(len(self.y), (n,), device=self.y.device)
        return self.x.flatten(0, 1)[i], self.y[i]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoints of `gate.loop`."""
        return {"x": self.x}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.x = state["x"]


PAIR = {"fake": Uniform((1,))}  # which generated image of its class a record is beside


def pair_loss(kind: str, fakes: Fakes, classify: float) -> Loss:
    """Loss of one record beside one generated image of its class; the pair's gradient is clipped as one.

    What a real and a generated image of one class have in common cancels before clipping, so that the bound is spent on
    what tells them apart. The label of the record is used inside the clipped map only, as the record itself is.

    Args:
        kind: of the critic's loss.
        fakes: where generated images come from.
        classify: weight of the cross-entropy of the class heads on the record.

    Returns:
        A loss to be asked with draws=PAIR.
    """

    def loss(net: Any, x: torch.Tensor, y: torch.Tensor, own: Mapping[str, torch.Tensor]) -> torch.Tensor:
        fake = fakes.x[y.expand(1), (own["fake"] * fakes.x.shape[1]).long()]
        heads = net(torch.cat([x[None], fake]), y.expand(2))
        s = score(heads, y.expand(2))
        total = real_loss(kind, s[0]) + fake_loss(kind, s[1])
        return total + classify * class_loss(heads[:1], y.expand(1))[0] if classify else total

    return loss


def record_loss(kind: str, classify: float) -> Loss:
    """Loss of one record alone; arguments as of `pair_loss`."""

    def loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        heads = net(x[None], y[None])
        total = real_loss(kind, score(heads, y[None])[0])
        return total + classify * class_loss(heads, y[None])[0] if classify else total

    return loss


class FakePart:
    """The critic's gradient on generated images, each clipped alone, averaged: the counterpart of the gate's answer.

    No record is involved, so clipping here protects nothing; it keeps both parts of the critic's loss of equal weight.
    """

    def __init__(self, kind: str, critic: nn.Module, bound: float, shape: tuple[int, int, int], device: str):
        def loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return fake_loss(kind, score(net(x[None], y[None]), y[None])[0])

        blank = torch.zeros(shape, device=device), torch.zeros((), dtype=torch.int64, device=device)
        self.loss, self.bound, self.clipped = loss, bound, Clipped(loss, critic, blank)

    def add(self, grads: dict[str, torch.Tensor], critic: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add the mean over images x [n, C, H, W] with labels y [n] to gradients by name."""
        total = Total(self.clipped.size, self.bound, several=False)
        size = self.clipped.most(1 << 25)
        for a, b in zip(x.split(size), y.split(size), strict=True):
            self.clipped.add(total, self.loss, critic, (a, b), torch.arange(len(a)), torch.ones(len(a)))
        for name, g in self.clipped.split(total.sum / len(x), critic).items():
            grads[name] = grads[name] + g


def teach(
    generator: Any,
    critic: nn.Module,
    optimiser: torch.optim.Optimizer,
    kind: str,
    batch: int,
    classify: float = 0.0,
    codes: Codes = torch.randn,
    diversity: float = 0.0,
) -> None:
    """One step of the generator against the critic, with labels in equal shares. Costs no privacy.

    Args:
        generator, critic: networks; only the generator changes.
        optimiser: of the generator.
        kind: of the loss.
        batch: generated images.
        classify: weight of the cross-entropy of the critic's class heads.
        codes: what draws latent codes.
        diversity: weight of -log of the mean distance between two images of a class, against collapse. It differs from
            the published terms (Yang et al. 2019, arXiv 1901.09024; Mao et al. 2019, arXiv 1903.05628), which raise the
            ratio of the images' distance to that of their codes, without a logarithm; its pull fades as images part.
    """
    device = next(generator.parameters()).device
    y = torch.arange(batch, device=device) % generator.classes
    with fast():
        x = generator(codes(batch, generator.code, device=device), y)
        heads = critic(x, y)
    loss = generator_loss(kind, score(heads.float(), y)).mean()
    if classify:
        loss = loss + classify * class_loss(heads, y).mean()
    if diversity:
        other = x.roll(generator.classes, 0)  # of the same class, but for the few that wrap around
        loss = loss - diversity * ((x - other).abs().mean() + 1e-3).log()
    grads = torch.autograd.grad(loss, list(generator.parameters()))
    for p, g in zip(generator.parameters(), grads, strict=True):
        p.grad = g
    optimiser.step()


def default_steps(info: PublicInfo, privacy: Privacy) -> int:
    """Critic steps, from declared facts: 2000 at epsilon N = 600,000 or more, falling with its fourth root to 200."""
    return max(200, round(2000 * min(1.0, privacy.epsilon * info.units / 6e5) ** 0.25))


def low(info: PublicInfo, basis: int | None) -> int:
    """How many low frequencies the networks work in; None: a quarter of an image's values, at most 1024."""
    return min(1024, math.prod(info.shape) // 4) if basis is None else basis


class Snapshots:
    """Snapshots of a generator at even distances over the last part of the training: a mixture of them varies more.

    Args:
        many: how many.
        steps: of the loop.
    """

    def __init__(self, many: int, steps: int):
        self.due = {steps - 1 - round(i * steps / 2 / many): i for i in range(many)}
        self.kept: State = {}

    def take(self, t: int, net: nn.Module) -> None:
        """Keep one, if it is due at step t."""
        if t in self.due:
            self.kept |= {f"{self.due[t]}/{k}": v.clone() for k, v in net.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoints of `gate.loop`."""
        return dict(self.kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.kept = dict(state)

    def settled(self, net: Any, batch: int, codes: Codes = torch.randn) -> State:
        """All of them, each with batch statistics of its own; `net` lends its structure."""
        out: State = {}
        for i in sorted({k.split("/")[0] for k in self.kept}):
            net.load_state_dict(one_of(self.kept, i))
            settle(net, net.code, net.classes, batch, codes)
            out |= {f"{i}/{k}": v.clone() for k, v in net.state_dict().items()}
        return out


def one_of(state: State, i: str | int) -> State:
    """The i-th of `Snapshots`."""
    return {k.split("/", 1)[1]: v for k, v in state.items() if k.split("/")[0] == str(i)}


@torch.no_grad()
def mixture(net: Any, state: State, labels: torch.Tensor, codes: Codes = torch.randn) -> torch.Tensor:
    """Images [n, C, H, W] of the labels [n], each from a random one of the generators in `state`."""
    kept = sorted({k.split("/")[0] for k in state})
    which, z = torch.randint(len(kept), (len(labels),)), codes(len(labels), net.code)
    out = torch.empty(len(labels), *net.shape)
    for n, i in enumerate(kept):
        mine = (which == n).nonzero()[:, 0]
        if len(mine):
            net.load_state_dict(one_of(state, i))
            out[mine] = net.eval()(z[mine], labels[mine])
    return out


# ---------------------------------------------------------------------- schedule

RATIOS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class CriticSchedule:
    """How many critic steps come before a generator step.

    The adaptive rule of "Private GANs, revisited": when the running accuracy of the critic on generated images falls to
    the threshold, and the ratio has been kept for a number of generator steps, the next ratio of the list is taken. It
    looks at no record.

    Args:
        ratio: critic steps per generator step, to begin with.
        threshold: accuracy in (0, 1] below which the ratio grows; None: it never does.
        grace: generator steps at a ratio before it may grow.
    """

    def __init__(self, ratio: int, threshold: float | None, grace: int):
        self.threshold, self.grace = threshold, grace
        self.now: dict[str, float] = {"ratio": ratio, "waited": 0, "taken": 0, "accuracy": 1.0}

    def due(self) -> bool:
        """Count a critic step; whether the generator's turn has come."""
        self.now["waited"] += 1
        if self.now["waited"] < self.now["ratio"]:
            return False
        self.now["waited"] = 0
        return True

    @torch.no_grad()
    def judge(self, critic: nn.Module, fakes: Fakes) -> None:
        """Before a generator step: measure the critic on generated images, and raise the ratio if it fails."""
        if self.threshold is None:
            return
        x, y = fakes.draw(512)
        right = float((score(critic(x, y), y) < 0).float().mean())
        self.now["accuracy"] = 0.99 * self.now["accuracy"] + 0.01 * right
        self.now["taken"] += 1
        if self.now["taken"] >= self.grace and self.now["accuracy"] <= self.threshold:
            self.now["ratio"] = next((r for r in RATIOS if r > self.now["ratio"]), self.now["ratio"])
            self.now["taken"] = 0

    def state_dict(self) -> dict[str, float]:
        """For the checkpoints of `gate.loop`."""
        return dict(self.now)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.now = dict(state)


@torch.no_grad()
def clamp(net: nn.Module, limit: float | None) -> None:
    """Force every weight and bias into [-limit, limit]; None: leave them."""
    if limit is not None:
        for p in net.parameters():
            p.clamp_(-limit, limit)


# ---------------------------------------------------------------------- stage and method


class Game(Stage):
    """A critic that learns from the gate, by the loop "critic", and a generator that learns from the critic.

    Args:
        config: parameters; used here are `fakes`, `loss`, `batch_size`, `critic_steps`, `ema_decay`, `snapshots` and
            `diversity_weight`.

    Attributes:
        codes: what draws latent codes.
    """

    codes: Codes = staticmethod(torch.randn)

    def __init__(self, config: Any):
        self.config = config

    @abstractmethod
    def critic(self, info: PublicInfo) -> Any:
        """A new critic."""

    @abstractmethod
    def generator(self, info: PublicInfo) -> Any:
        """A new generator."""

    @abstractmethod
    def optimisers(self, critic: Any, generator: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """(the critic's, the generator's)."""

    @abstractmethod
    def rates(self, t: int, steps: int) -> tuple[float, float]:
        """Learning rates at step t of so many: (the critic's, the generator's)."""

    @abstractmethod
    def made(self, info: PublicInfo) -> int:
        """Generated images per generator step."""

    @property
    @abstractmethod
    def weights(self) -> tuple[float, float]:
        """Of the class heads' cross-entropy: (on records, on generated images for the generator)."""

    @property
    def limit(self) -> float | None:
        """Of the critic's weights; None: they are free."""
        return None

    def schedule(self, budget: Privacy) -> CriticSchedule | None:
        """When the generator has its turn; None: always after `critic_steps` critic steps."""
        return None

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """The generators that were kept."""
        c, release, classes = self.config, gate.release("critic"), len(info.classes)
        nets = self.critic(info), self.generator(info)
        critic, generator = (net.to(self.device, memory_format=torch.channels_last) for net in nets)
        clamp(critic, self.limit)
        fakes = Fakes(classes, max(1, POOL // classes), info.shape, self.device, self.codes)
        fakes.renew(generator)
        paired, (classify, guide) = c.fakes == "paired", self.weights
        loss = pair_loss(c.loss, fakes, classify) if paired else record_loss(c.loss, classify)
        rest = None if paired else FakePart(c.loss, critic, release.bound, info.shape, self.device)
        (ours, theirs), mean = self.optimisers(critic, generator), average(generator, c.ema_decay)
        schedule, snapshots, batch = self.schedule(budget), Snapshots(c.snapshots, release.steps), self.made(info)
        state = {"critic": critic, "generator": generator, "mean": mean, "ours": ours, "theirs": theirs, "fakes": fakes}

        def best() -> Any:
            return mean.module if c.ema_decay and int(mean.n_averaged) else generator

        for t in gate.loop("critic", state | {"album": snapshots} | ({"pace": schedule} if schedule else {})):
            ours.param_groups[0]["lr"], theirs.param_groups[0]["lr"] = self.rates(t, release.steps)
            with fast():
                grads = gate.grad("critic", loss, critic, draws=PAIR if paired else None)
                if rest is not None:
                    rest.add(grads, critic, *fakes.draw(c.batch_size))
            descend(ours, critic, grads)
            clamp(critic, self.limit)
            if schedule.due() if schedule else (t + 1) % c.critic_steps == 0:
                if schedule:
                    schedule.judge(critic, fakes)
                teach(generator, critic, theirs, c.loss, batch, guide, self.codes, c.diversity_weight)
                mean.update_parameters(generator)
                fakes.renew(generator)
            snapshots.take(t, best())
        return snapshots.settled(best(), max(2, batch), self.codes)

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images of all generators that were kept."""
        return mixture(self.generator(info), state, labels, self.codes)


class Adversarial(Single):
    """Base of the methods whose one stage is such a game."""

    @abstractmethod
    def _stage(self) -> Game: ...

    def critic(self, info: PublicInfo) -> Any:
        """A new critic."""
        return self._stage().critic(info)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """critic: the score of the trained critic, which the run's private folder holds."""
        return scored(self.critic(self.fitted()[1]), folder, x, y)


def scored(critic: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """critic: the score of the trained critic, for `attack_features`.

    A release does not contain it: it is read from the run's private folder, which makes the stronger attacker.

    Raises:
        RunError: it is not in the folder.
    """
    kept = RunStore(folder).checkpoint("critic")
    if kept is None:
        raise RunError(
            f"{folder}/private/checkpoints: the critic is not there, and attacks on a GAN score candidates by it; "
            "fit again into a new folder, and attack it before `veilset data clean`"
        )
    critic.load_state_dict(kept["state"]["critic"])
    return {"critic": score(critic(x, y).float(), y)}
