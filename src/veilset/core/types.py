"""The two values that may leave the private side: public facts about a set, and images."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, DataError
from veilset.core.rendering import legible

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

MAX_SIDE = 1024


@dataclass(frozen=True, kw_only=True)
class PublicInfo:
    """What is declared about an image set. Nothing here is computed from a record.

    Attributes:
        name: the set's name.
        classes: class names in label order; label k means classes[k].
        shape: (channels, height, width); channels 1 (grey) or 3 (RGB).
        value_range: (low, high) of stored pixel values; (0, 255) for 8-bit images.
        units: declared number N of units (people, patients) in the training split; every denominator is made from it.
        unit: what one unit is, in words: "one image" or, with unit ids, for example "one patient".
        max_images_per_unit: public cap on images of one unit; further ones are left out.
        access: "private" or "public" for the test split; the training split is always private.

    Examples:
        >>> info = vs.PublicInfo(name="scans", classes=("benign", "malign"), shape=(1, 28, 28), units=1200)
        >>> info.pixels
        784
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    value_range: tuple[float, float] = (0.0, 255.0)
    units: int
    unit: str = "one image"
    max_images_per_unit: int = 1
    access: str = "private"

    def __post_init__(self) -> None:
        c, h, w = self.shape
        if c not in (1, 3) or not (1 <= h <= MAX_SIDE and 1 <= w <= MAX_SIDE):
            raise DataError(f"shape = {list(self.shape)}: must be [1 or 3, height, width] with sides up to {MAX_SIDE}")
        if len(self.classes) < 1 or len(set(self.classes)) != len(self.classes):
            raise DataError(f"classes = {list(self.classes)}: must be one or more distinct names")
        if self.units < 1:
            raise DataError(
                f"units = {self.units}: must be at least 1; declare how many units the training split holds"
            )
        if self.max_images_per_unit < 1:
            raise DataError(f"max_images_per_unit = {self.max_images_per_unit}: must be at least 1")
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise DataError(f"value_range = {list(self.value_range)}: must be finite [low, high] with low < high")
        if self.access not in ("public", "private"):
            raise DataError(f"access = {self.access!r}: must be public or private")

    @property
    def pixels(self) -> int:
        """Numbers in one image: channels x height x width."""
        c, h, w = self.shape
        return c * h * w

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> PublicInfo:
        """Read what `to_json` wrote."""
        d = dict(d)
        for k in ("classes", "shape", "value_range"):
            d[k] = tuple(d[k])
        return cls(**d)


@dataclass(frozen=True, repr=False)
class Images:
    """A labelled image set that may be looked at: synthetic, or declared public.

    Attributes:
        x: uint8 [N, C, H, W], values 0 to 255.
        y: int64 [N], labels as indices into `classes`.
        classes: class names.
        reads_private: True when the pixels came out of `gate.inspect`.
        label: where they came from ("SYNTHETIC", "NOT A RELEASE: ...").

    Examples:
        >>> pictures = vs.Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), ("no", "yes"))
        >>> folder = pictures.save("pictures", format="npz")
        >>> len(vs.Images.load(folder))
        2
    """

    x: torch.Tensor
    y: torch.Tensor
    classes: tuple[str, ...]
    reads_private: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        import torch

        if self.x.dtype != torch.uint8 or self.x.ndim != 4:
            raise DataError(f"x is {self.x.dtype} with {self.x.ndim} axes: must be uint8 [N, C, H, W]")
        if self.y.dtype != torch.int64 or self.y.shape != (len(self.x),):
            raise DataError(f"y is {self.y.dtype} of shape {list(self.y.shape)}: must be int64 [{len(self.x)}]")
        if len(self.y) and (int(self.y.min()) < 0 or int(self.y.max()) >= len(self.classes)):
            raise DataError(f"a label lies outside 0..{len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Images:
        """A subset by slice, mask or index tensor."""
        return dataclasses.replace(self, x=self.x[index], y=self.y[index])

    def __repr__(self) -> str:
        n, c, h, w = self.x.shape
        tail = f", {legible(self.label)}" if self.label else ""
        return f"Images({n} of {c}x{h}x{w}, {len(self.classes)} classes{tail})"

    def grid(self, per_class: int = 10) -> Any:
        """A PIL image: one row per class, `per_class` columns."""
        from veilset.core.pictures import grid

        return grid(self, per_class)

    def _repr_png_(self) -> bytes:
        import io

        out = io.BytesIO()
        self.grid().save(out, "PNG")
        return out.getvalue()

    def save(self, folder: str | Path, format: str = "folder") -> Path:
        """Write a new folder of pictures, which is no release: without ledger and receipt nobody can check a claim.

        PNGs with labels.csv ("folder"), images.npz ("npz") or images.parquet ("parquet"). A release is written by
        `model.write_samples(images, folder)`, or by `veilset sample`.

        Raises:
            RunError: the folder exists.
            ConfigError: unknown format.
        """
        from veilset.core.io import new_folder

        with new_folder(folder) as tmp:
            self.write(tmp, format)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, *, classes: Sequence[str] | None = None) -> Images:
        """Read what `save` wrote, in any of its formats; `label` is not kept there. For a release use `open_release`.

        Args:
            folder: a folder that `save` wrote.
            classes: class names in label order; by default those of the file. PNGs and parquet name only classes that
                have images: unless given, a last one without any is missing, and one in between is an error.

        Raises:
            RunError: no images there, damaged ones, a class without a name, or a release.
            DataError: `classes` is no list of distinct names.
        """
        from veilset.core.pictures import read_images
        from veilset.core.saved import described

        return read_images(Path(folder), described(Path(folder), classes))

    def write(self, folder: Path, format: str) -> None:
        """Write the files of `save` into an existing folder."""
        from veilset.core import pictures

        writers = {"folder": pictures.write_pngs, "npz": pictures.write_npz, "parquet": pictures.write_parquet}
        if format not in writers:
            raise ConfigError(f"format = {format!r}: must be one of {', '.join(writers)}")
        writers[format](self, folder)
