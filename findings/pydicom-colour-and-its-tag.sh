#!/usr/bin/env bash
# pydicom 3.0.2: `pixel_array` of a YBR picture is RGB already, and the tag beside it goes on saying YBR_FULL.
#
# Guess: `pixel_array` holds the stored samples, and PhotometricInterpretation says what they are; so one converts where
# the tag is not RGB, as programs for pydicom 2 do. Seen: uncompressed YBR_FULL comes as RGB, the tag is not changed, and
# the usual line after it converts a second time: on this picture wrong by 94 grey levels, no error. PixelData and
# `pydicom.pixels.pixel_array(..., raw=True)` are YBR as stored.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import convert_color_space, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
stored = convert_color_space(rgb, "RGB", "YBR_FULL")
ds = Dataset()
ds.file_meta = FileMetaDataset()
ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PlanarConfiguration = 16, 16, 3, 0
ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
ds.PhotometricInterpretation, ds.PixelData = "YBR_FULL", stored.tobytes()


def off(found):
    return float(np.abs(found.astype(int) - rgb).mean())


seen = ds.pixel_array
again = convert_color_space(seen, ds.PhotometricInterpretation, "RGB")  # what the tag asks for
print(f"pydicom {pydicom.__version__}: tag {ds.PhotometricInterpretation}; mean distance from the true colours, in grey levels")
print(f"pixel_array {off(seen):.2f}, converted by the tag {off(again):.1f}")
assert off(seen) < 1 and ds.PhotometricInterpretation == "YBR_FULL", "samples or tag are left otherwise now"
assert off(again) > 30
assert (pixel_array(ds, raw=True) == stored).all()
PY
"$work/env/bin/python" "$work/look.py"
