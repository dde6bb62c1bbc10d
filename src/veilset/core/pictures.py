"""Write, read back and show `Images`: PNG grid, PNG folder, npz, parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, RunError

if TYPE_CHECKING:
    from veilset.core.types import Images


def to_pil(x: Any) -> Any:
    """One uint8 [C, H, W] tensor as a PIL image (grey or RGB)."""
    from PIL import Image

    a = x.numpy()
    return Image.fromarray(a[0] if a.shape[0] == 1 else a.transpose(1, 2, 0))


def png_bytes(x: Any) -> bytes:
    """One uint8 [C, H, W] tensor as PNG bytes."""
    out = io.BytesIO()
    to_pil(x).save(out, "PNG")
    return out.getvalue()


def grid(images: Images, per_class: int, scale: int | None = None, gap: int = 1) -> Any:
    """A contact sheet: one row a class, the first `per_class` images of each; missing ones stay background."""
    from PIL import Image

    c, h, w = images.x.shape[1:]
    scale = scale or max(1, 64 // max(h, w))
    mode, back = ("L", 255) if c == 1 else ("RGB", (255, 255, 255))
    sheet = Image.new(mode, (per_class * (w + gap) + gap, len(images.classes) * (h + gap) + gap), back)
    for k in range(len(images.classes)):
        for j, x in enumerate(images.x[images.y == k][:per_class]):
            sheet.paste(to_pil(x), (gap + j * (w + gap), gap + k * (h + gap)))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


def write_pngs(images: Images, folder: Path) -> None:
    """PNG files images/000000.png ... and labels.csv (file, label, class)."""
    (folder / "images").mkdir()
    with open(folder / "labels.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["file", "label", "class"])
        for i, (x, y) in enumerate(zip(images.x, images.y.tolist(), strict=True)):
            name = f"images/{i:06d}.png"
            (folder / name).write_bytes(png_bytes(x))
            table.writerow([name, y, images.classes[y]])


def write_npz(images: Images, folder: Path) -> None:
    """images.npz: x uint8 [N,C,H,W], y int64 [N], classes (unicode). Opens with allow_pickle=False."""
    import numpy as np

    np.savez_compressed(
        folder / "images.npz", x=images.x.numpy(), y=images.y.numpy(), classes=np.array(images.classes, dtype=np.str_)
    )


def write_parquet(images: Images, folder: Path) -> None:
    """images.parquet: columns `image` (PNG bytes and path), `label`, `class`: the layout of Hugging Face image sets."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("format = 'parquet': needs pyarrow; pip install 'veilset[parquet]'") from None
    rows = [{"bytes": png_bytes(x), "path": f"{i:06d}.png"} for i, x in enumerate(images.x)]
    names = [images.classes[y] for y in images.y.tolist()]
    pq.write_table(pa.table({"image": rows, "label": images.y.numpy(), "class": names}), folder / "images.parquet")


def read_images(folder: Path, classes: tuple[str, ...], label: str = "") -> Images:
    """Read back a folder that `Images.save` wrote, in any of its formats. No pickle is opened.

    Args:
        folder: a release folder.
        classes: class names, from its receipt.
        label: where the images came from.

    Raises:
        RunError: no images there, or damaged ones.
    """
    import numpy as np
    import torch
    from PIL import Image

    from veilset.core.types import Images

    def decode(source: Any) -> Any:
        a = np.asarray(Image.open(source))
        return a[None] if a.ndim == 2 else a.transpose(2, 0, 1)

    try:
        if (folder / "images.npz").exists():
            with np.load(folder / "images.npz", allow_pickle=False) as z:
                x, y = z["x"], z["y"]
        elif (folder / "images.parquet").exists():
            import pyarrow.parquet as pq

            t = pq.read_table(folder / "images.parquet").to_pydict()
            x, y = np.stack([decode(io.BytesIO(r["bytes"])) for r in t["image"]]), np.array(t["label"])
        elif (folder / "labels.csv").exists():
            with open(folder / "labels.csv", newline="") as f:
                rows = list(csv.DictReader(f))
            x, y = np.stack([decode(folder / r["file"]) for r in rows]), np.array([int(r["label"]) for r in rows])
        else:
            raise RunError(f"{folder}: no images here; expected labels.csv, images.npz or images.parquet")
    except (OSError, ValueError, KeyError) as e:
        raise RunError(f"{folder}: the images cannot be read ({e}); sample them again") from e
    return Images(torch.from_numpy(x.copy()), torch.from_numpy(y.astype(np.int64)), classes, label=label)
