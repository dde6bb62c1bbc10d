"""Parameters by the names that they had up to 0.2: they are taken for one release more, with a note.

An old name means a new one where a method has that one and no parameter by the old name.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from veilset.core.errors import ConfigError, Note

RENAMED: Mapping[str, tuple[str, ...]] = {
    "average": ("ema_decay",),
    "batch": ("batch_size",),
    "bend": ("cutoff",),
    "bound": ("clip_norm",),
    "cells": ("n_components",),
    "choose": ("selection",),
    "churn": ("s_churn",),
    "churn_from": ("s_min",),
    "churn_to": ("s_max",),
    "classify": ("critic_class_weight",),
    "clip": ("clip_norm",),
    "code": ("latent_dim",),
    "codes": ("latent_prior",),
    "copies": (
        "snapshots",
        "noise_multiplicity",
    ),
    "decay": (
        "lr_schedule",
        "lr_decay",
    ),
    "detail": ("texture",),
    "deviation": ("pixel_std",),
    "diversity": ("diversity_weight",),
    "drawn": ("sample_pixels",),
    "draws": (
        "latent_samples",
        "mc_samples",
    ),
    "drop": ("label_dropout",),
    "embedding": ("embedding_dim",),
    "entry": ("entry_sigma",),
    "generator_batch": ("generator_batch_size",),
    "generator_rate": ("generator_lr",),
    "group": ("group_size",),
    "guidance": ("guidance_scale",),
    "guide": ("generator_class_weight",),
    "hidden": ("hidden_dim",),
    "inner_rate": ("inner_lr",),
    "kl": ("kl_weight",),
    "last_rate": ("final_lr",),
    "latent": ("latent_dim",),
    "level_mean": ("p_mean",),
    "level_std": ("p_std",),
    "limit": ("weight_limit",),
    "maps": ("class_maps",),
    "moved": ("augment",),
    "networks_a_step": ("networks_per_step",),
    "optimiser": ("optimizer",),
    "patch": ("patch_size",),
    "pixels": ("likelihood",),
    "query_rate": ("query_sample_rate",),
    "rate": ("lr",),
    "ratio": ("critic_steps",),
    "share": ("budget_share",),
    "size": ("basis_size",),
    "warm": ("kl_warmup",),
    "warm_batch": ("warm_batch_size",),
    "warm_rate": ("warm_lr",),
}


def modern(values: Mapping[str, Any], known: Collection[str], owner: str, *, tell: bool = True) -> dict[str, Any]:
    """Values by the present names of their parameters; names that no version had are left as they are.

    Args:
        values: name -> value.
        known: the names that the owner takes.
        owner: what the parameters belong to, for the message.
        tell: note each old name with the new one; not for what a file keeps, which its reader cannot change.

    Raises:
        ConfigError: a parameter is given by its old and its new name.
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        new = next((n for n in RENAMED.get(name, ()) if n in known and name not in known), name)
        if new != name and new in values or new in out:
            raise ConfigError(f"{owner}: {name} and {new} are one parameter; give {new} alone")
        if new != name and tell:
            note = f"parameter {name} of {owner} is now {new}; the old name goes in the next release"
            warnings.warn(note, Note, stacklevel=3)
        out[new] = value
    return out
