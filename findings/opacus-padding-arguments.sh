#!/usr/bin/env bash
# Opacus 1.6.0: per-sample gradients of a convolution are of another function unless it is padded with zeros.
#
# Guess: a layer that Opacus accepts has the per-sample gradients of that layer, whatever its arguments. Seen: with hooks,
# the default, `padding_mode` "reflect", "circular" and "replicate" are read as "zeros": no error, no warning from the
# validator, and the gradient of each record is off by a third to a half. Training is private, but descends on a function
# that is not the network's. The row of `nn.Embedding` that `padding_idx` keeps still gets a gradient too. With
# `grad_sample_mode="ew"` convolutions are right. Generators that pad by reflection are common.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 opacus==1.6.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import copy
import warnings

import opacus
import torch
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

warnings.simplefilter("ignore")
torch.manual_seed(0)


def one_by_one(module, x):
    rows = []
    for i in range(len(x)):
        module.zero_grad()
        module(x[i : i + 1]).square().sum().backward()
        rows.append(module.weight.grad.clone())
    return torch.stack(rows)


def hooked(module, x):
    wrapped = GradSampleModule(copy.deepcopy(module), loss_reduction="sum")
    wrapped(x).square().sum().backward()
    return wrapped._module.weight.grad_sample


print(f"Opacus {opacus.__version__}: largest error of a per-sample gradient, by its largest entry")
x = torch.randn(5, 2, 8, 8)
for mode in ("zeros", "reflect", "circular", "replicate"):
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode)
    assert not ModuleValidator.validate(layer), "the validator objects now"
    right = one_by_one(layer, x)
    error = float((hooked(layer, x) - right).abs().max() / right.abs().max())
    print(f"{mode}: {error:.1e}")
    assert error < 1e-5 if mode == "zeros" else error > 0.1, "it is computed otherwise now"
words = nn.Embedding(10, 4, padding_idx=0)
nn.init.normal_(words.weight)
tokens = torch.tensor([[0, 0, 1]])
there, ours = one_by_one(words, tokens)[0, 0], hooked(words, tokens)[0, 0]
print(f"row of padding_idx: {float(there.norm())} by autograd, {float(ours.norm()):.2f} by Opacus")
assert there.norm() == 0 and ours.norm() > 0.1
PY
"$work/env/bin/python" "$work/look.py"
