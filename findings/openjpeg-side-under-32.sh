#!/usr/bin/env bash
# pylibjpeg-openjpeg 2.6.0: no image with a side below 32 can be written as JPEG 2000, so `Dataset.compress` of pydicom
# 3.0.2 refuses every small slice, patch or thumbnail.
#
# Guess: JPEG 2000 has no least size, so a lossless 28 x 28 patch is encoded like any other, or the message says which
# sizes are allowed. Seen: 31 x 31 and 512 x 31 end in "failure result from 'opj_start_compress()'", and 32 x 32 is
# written. The encoder asks for six resolutions, which halve the image five times, and takes no argument for fewer; the
# error names neither. RLE has no such limit. Who makes a small test set, or converts patches, meets this.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 pylibjpeg-openjpeg==2.6.0 pylibjpeg==2.1.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
from importlib.metadata import version

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless


def slice_of(rows, columns):
    """A valid grey picture of noise, not compressed."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = np.random.default_rng(0).integers(0, 256, rows * columns, np.uint8).tobytes()
    return ds


def written(syntax, rows, columns):
    """Whether it is compressed, or why not."""
    ds = slice_of(rows, columns)
    before = ds.pixel_array.copy()
    try:
        ds.compress(syntax, generate_instance_uid=False)
    except RuntimeError as e:
        return str(e).splitlines()[-1].strip()
    assert (ds.pixel_array == before).all(), "lossless, and other pixels"
    return "written"


print(f"pydicom {version('pydicom')}, pylibjpeg-openjpeg {version('pylibjpeg-openjpeg')}")
for rows, columns in ((32, 32), (31, 31), (28, 28), (512, 31), (512, 512)):
    got, other = written(JPEG2000Lossless, rows, columns), written(RLELossless, rows, columns)
    print(f"{rows} x {columns}: JPEG 2000: {got}; RLE: {other}")
    assert (got == "written") == (min(rows, columns) >= 32), "the least side is another one now"
    assert got == "written" or "opj_start_compress" in got, "the message says more now"
    assert other == "written"
PY
"$work/env/bin/python" "$work/look.py"
