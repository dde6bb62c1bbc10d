"""Draw the README's picture: `python docs/make_pictures.py`, a quarter of an hour.

The default method in release mode, epsilon 1; first samples, none chosen.
"""

from pathlib import Path

from PIL import Image

import veilset as vs
from veilset.methods.catalogue import DEFAULT

SETS, PER_CLASS = ("mnist", "fashion-mnist"), 12


def main() -> None:
    sheets = []
    for name in SETS:
        model = vs.make(DEFAULT).fit(vs.load(name).train, vs.Privacy(epsilon=1.0, delta=1e-5))
        sheets.append(model.sample(10 * PER_CLASS).grid(PER_CLASS))
    gap = 16
    page = Image.new("L", (sum(s.width for s in sheets) + gap, max(s.height for s in sheets)), 255)
    left = 0
    for sheet in sheets:
        page.paste(sheet, (left, 0))
        left += sheet.width + gap
    page.save(Path(__file__).with_name("samples.png"), optimize=True)


if __name__ == "__main__":
    main()
