"""Modules by the names that they had in 0.1: they are found for one release more, with a note."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

FAMILIES = {
    "methods.moments": "dp_moments taught_moments histograms",
    "methods.embedding": "dp_merf",
    "methods.gan": "dp_gan dp_cgan",
    "methods.latent": "autoencoders dp_cvae vae_gm au_gm",
    "methods.diffusion": "dp_diffusion dp_feta",
    "methods.condensation": "private_set dp_kip dp_condense",
    "methods.teachers": "dp_scatter",
}
MOVED = {
    f"veilset.methods.{name}": f"veilset.{home}.{name}" for home, all_ in FAMILIES.items() for name in all_.split()
}
MOVED |= {
    f"veilset.data.{name}": f"veilset.data.formats.{name}" for name in ("celeba", "folder", "idx", "npz", "table")
}
MOVED |= {
    "veilset.methods.adversarial": "veilset.methods.gan.common",
    "veilset.methods.choosing": "veilset.methods.moments.selection",
    "veilset.methods.codes": "veilset.methods.latent.density",
    "veilset.methods.detail": "veilset.methods.moments.texture",
    "veilset.methods.few": "veilset.methods.condensation.common",
    "veilset.methods.matching": "veilset.methods.condensation.gradient_matching",
    "veilset.methods.shrinkage": "veilset.learning.shrinkage",
    "veilset.methods.training": "veilset.learning.dp_sgd",
    "veilset.networks.moves": "veilset.learning.augmentation",
    "veilset.evaluation.overlap": "veilset.data.overlap",
    "veilset.data.source": "veilset.data.formats.detect",
    "veilset.privacy.books": "veilset.privacy.run.journal",
    "veilset.privacy.collective": "veilset.privacy.run.process_group",
    "veilset.core.checkpoint": "veilset.privacy.run.checkpoint",
    "veilset.core.vault": "veilset.privacy.run.run_store",
    "veilset.core.wire": "veilset.privacy.run.transport",
    "veilset.core.words": "veilset.core.rendering",
}


class Moved(MetaPathFinder, Loader):
    """Finds a module by its old name, after all other finders: what is there is never shadowed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Its new home, if it has one."""
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, by its new name."""
        from veilset.core.errors import Note

        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old name goes in the next release", Note, stacklevel=2)
        module = import_module(new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It was run already."""
        module.__spec__ = self.spec


def install() -> None:
    """Look for old names from now on."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
