"""Methods of two sums, and of a sum and a loop; the first can kill its process. A script that fits it into a folder."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass

import torch

import veilset as vs
from veilset.methods import catalogue
from veilset.runs import RunSpec, execute

KILL = os.environ.get("KILL", "")


@dataclass(frozen=True)
class Config:
    shift: float = vs.option(0.0, "added to every mean", ge=-1, le=1)


class Two(vs.Synthesizer):
    """Class means and mean squares."""

    name = "two-sums"
    Config = Config

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean", bound=4.0), vs.Release(name="square", bound=4.0)))

    def _fit(self, gate, info, plan):
        real = gate._noised

        def noised(exact, release, purpose, **how):
            if f"charged {release.name}" == KILL:  # after the charge, before the answer is kept
                os.kill(os.getpid(), signal.SIGKILL)
            return real(exact, release, purpose, **how)

        gate._noised = noised
        out = {}
        for name, f in (("mean", lambda x, y: x), ("square", lambda x, y: x.square())):
            out[name] = gate.sum(name, f, by_class=True).float() + self.config.shift + 1e-3 * torch.randn(1)
            if f"kept {name}" == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
        if KILL == "wait":
            print("ready", flush=True)
            time.sleep(60)
        return out

    def _sample(self, state, info, labels):
        return state["mean"][labels]


class Climb(vs.Synthesizer):
    """Class means from a sum, then one bright image learned by a loop of gradients, with draws between."""

    name = "climb"
    Config = Config
    steps = 6

    def _plan(self, info, privacy):
        step = vs.Release(name="step", verb="grad", steps=self.steps)  # unsampled: priced in no time
        return vs.Plan((vs.Release(name="mean", bound=4.0), step))

    def _fit(self, gate, info, plan):
        mean = gate.sum("mean", lambda x, y: x, by_class=True).float()
        net = torch.nn.Linear(info.pixels, len(info.classes))
        adam = torch.optim.Adam(net.parameters(), 0.1)
        for _ in gate.loop("step", {"net": net, "adam": adam}):
            grads = gate.grad("step", _noisy_guess, net)
            for k, p in net.named_parameters():
                p.grad = grads[k] + 1e-3 * torch.randn_like(p)
            adam.step()
        return {"mean": mean + self.config.shift, **net.state_dict()}

    def _sample(self, state, info, labels):
        return state["mean"][labels]


def _noisy_guess(net, x, y):
    return torch.nn.functional.cross_entropy(net((x + 0.01 * torch.randn_like(x)).flatten()[None]), y[None])


def install() -> None:
    """Make the methods known by name in this process."""
    real, mine = catalogue._load, {cls.name: cls for cls in (Two, Climb)}
    catalogue._load = lambda name, *kind: mine[name] if name in mine else real(name, *kind)


if __name__ == "__main__":
    install()
    torch.set_num_threads(1)
    execute(RunSpec(method=Two.name, **json.loads(sys.argv[2])), sys.argv[1])
