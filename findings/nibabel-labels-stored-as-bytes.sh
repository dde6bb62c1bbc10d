#!/usr/bin/env bash
# nibabel 5.4.2: class numbers 0 to 7, saved as bytes, come back as 0, 0.988, 2.004, 2.992, ...: class 1 becomes 0.
#
# Guess: whole numbers from 0 to 7 in an array of floats (what a resampling or a network gives) fit into uint8, so with
# `set_data_dtype(np.uint8)` they are saved as they are. Seen: the range of a float array is stretched over that of the
# type, and the slope is written to the header; read again as nibabel, SimpleITK and others do, whole numbers are no longer
# whole, and `astype(int)`, as loaders of labels do it, takes 1 to 0, 3 to 2, 5 to 4. int16 does the same. An array that was
# cast before is saved exactly. Missing values are not kept either: NaN comes back as a small number, infinity as the
# largest of the others, without a warning.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import sys
import warnings

import nibabel
import numpy as np

warnings.simplefilter("error")


def saved(values, kind):
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(kind)
    nibabel.save(image, sys.argv[1])
    return nibabel.load(sys.argv[1]).get_fdata()


classes = np.arange(8.0).reshape(2, 2, 2)
print(f"nibabel {nibabel.__version__}: 0 to 7, saved as bytes, read again, then cast to whole numbers")
for values, kind, expected in (
    (classes, np.uint8, [0, 0, 2, 2, 4, 4, 6, 7]),
    (classes, np.int16, [0, 0, 1, 2, 4, 5, 6, 6]),
    (classes.astype(np.uint8), np.uint8, list(range(8))),
):
    got = saved(values, kind).ravel()
    print(values.dtype, np.dtype(kind), got.round(4).tolist(), "->", got.astype(int).tolist())
    assert got.astype(int).tolist() == expected, "it scales otherwise now"
missing = np.linspace(0, 2, 8).reshape(2, 2, 2)
missing[0, 0, 0], missing[0, 0, 1] = np.nan, np.inf
got = saved(missing, np.int16).ravel()
print("NaN ->", got[0], " infinity ->", got[1])
assert abs(got[0]) < 1e-3 and abs(got[1] - 2) < 1e-3, "they are kept, or refused, now"
PY
"$work/env/bin/python" "$work/look.py" "$work/labels.nii"
