"""Build the compiled part on the way, where there is a compiler; without it the package does the same more slowly."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path(__file__).parent / "src" / "veilset" / "privacy" / "gradients"
spec = spec_from_file_location("build_kernels", FOLDER / "build.py")
kernels = module_from_spec(spec)
spec.loader.exec_module(kernels)


class Build(build_ext):
    """Calls our own script: no Python module is made, so one library serves every Python and every torch."""

    def build_extension(self, ext):
        """Compile; say so in one line if it cannot be done."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        try:
            kernels.build(library)
        except (OSError, subprocess.CalledProcessError) as e:
            said = (e.stderr or f"{e.cmd[0]} failed") if isinstance(e, subprocess.CalledProcessError) else str(e)
            print("veilset: no compiled part, gradients will take longer:", said.splitlines()[0], file=sys.stderr)

    def get_ext_filename(self, name):
        """Without the name of a Python version."""
        return name.replace(".", "/") + ".so"


class Wheel(bdist_wheel):
    """A wheel for every Python 3, on this kind of processor."""

    def get_tag(self):
        """Such as py3-none-linux_x86_64."""
        tag = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


compiled = [Extension("veilset.privacy.gradients._kernels", [], optional=True)] if kernels.supported() else []
setup(ext_modules=compiled, cmdclass={"build_ext": Build, "bdist_wheel": Wheel})
