"""How long it takes to read image sets, beside an older build, a plain loop, or the same set in another form.

`python benchmarks/runner/reading.py WHAT FOLDER [N] [TREE]` makes a set of N records in a new FOLDER, if it is not
there yet, and prints lines of JSON: seconds of processor and wall, and the peak of memory above that after import.

- `check`: `veilset data check` of N PNGs, 28 x 28, in ten classes: by the build in TREE, by this one, and by this one
  on two processes, in turn.
- `zip`: `veilset data check` of N PNGs in a folder, and in a zip.
- `dicom`: N slices of 512 x 512, 12 bits, uncompressed and as JPEG 2000, to PNGs of 64 x 64: by `veilset.data.prepare`,
  and by a loop of pydicom and Pillow.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3
HERE = Path(__file__).parents[2]
WINDOW = (0.0, 4095.0)
MEMORY = "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
OURS = (
    MEMORY
    + """
import sys
import pydicom, PIL.Image
from veilset.data import prepare
from veilset.data.reading import Reading
begin = peak()
prepare(sys.argv[1], sys.argv[2], size=64, window=(0.0, 4095.0), reading=Reading(label_from="BodyPartExamined"))
print(peak() - begin)
"""
)
LOOP = (
    MEMORY
    + """
import os, sys
from pathlib import Path
import numpy as np, pydicom
from PIL import Image
from veilset.data import prepare
begin = peak()
os.makedirs(sys.argv[2])
for i, path in enumerate(sorted(Path(sys.argv[1]).glob("*.dcm"))):
    ds = pydicom.dcmread(path)
    values = np.rint(ds.pixel_array.astype(np.float64) * (255.0 / 4095.0)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(values).resize((64, 64), Image.Resampling.LANCZOS)
    image.save(f"{sys.argv[2]}/{i:07}.png", "PNG", compress_level=1)
print(peak() - begin)
"""
)


def pictures(n: int) -> Iterator[tuple[str, bytes]]:
    """(name, PNG bytes) of n smooth pictures of 28 x 28 with a line of noise, in ten classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 3, (100, 28, 28)), 1), 2) + 100
    base = smooth.clip(0, 255).astype(np.uint8)
    for i in range(n):
        a, out = base[i % 100].copy(), io.BytesIO()
        a[rng.integers(28)] = rng.integers(0, 256, 28)
        Image.fromarray(a).save(out, "PNG")
        yield f"{i % 10}/{i:06}.png", out.getvalue()


def folder_of(root: Path, n: int) -> Path:
    """The pictures as a folder of classes, and beside it as a zip."""
    if not root.exists():
        with zipfile.ZipFile(f"{root}.zip", "w") as z:
            for name, data in pictures(n):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
                z.writestr(name, data)
    return root


def slices_of(root: Path, n: int, compressed: bool) -> Path:
    """n DICOM files of 512 x 512, 12 bits in 16; ten different slices."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage, generate_uid

    if root.exists():
        return root
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(min(10, n)):
        smooth = np.cumsum(np.cumsum(rng.normal(0, 1, (512, 512)), 0), 1)
        x = (2048 + smooth * (1500 / np.abs(smooth).max()) + rng.normal(0, 8, smooth.shape)).clip(0, 4095)
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        ds.BodyPartExamined, ds.Modality = ("CHEST", "SKULL")[k % 2], "OT"
        ds.Rows = ds.Columns = 512
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = x.astype(np.uint16).tobytes()
        if compressed:
            ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        for i in range(k, n, 10):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.PatientID = f"P{i // 50:05}"
            ds.save_as(root / f"{i:06}.dcm", enforce_file_format=True)
    return root


def timed(what: str, command: list[str], tree: Path = HERE) -> None:
    """Run a command with a tree's sources, and print what it took."""
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    told: dict[str, Any] = {"what": what, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    told |= {"wall_s": wall}
    if command[0] == "-c":
        told["above_import_mb"] = float(done.stdout.split()[-1])
    print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in told.items()}), flush=True)


def declare(source: Path) -> None:
    """Draft a declaration, as it is."""
    from veilset.data import init
    from veilset.data.declare import path_for

    path_for(source).unlink(missing_ok=True)
    init(source)


def main(what: str, folder: str, n: str = "1000", tree: str = "") -> None:
    """Make the set, and time it ROUNDS times."""
    root, check = Path(folder), ["-m", "veilset.cli.main", "data", "check"]
    if what == "dicom":
        for compressed in (False, True):
            kind = "jpeg2000" if compressed else "uncompressed"
            source = slices_of(root / kind, int(n), compressed)
            for _ in range(ROUNDS):
                for name, script in (("veilset", OURS), ("loop", LOOP)):
                    shutil.rmtree(root / "out", ignore_errors=True)
                    timed(f"{kind} {name}", ["-c", script, str(source), str(root / "out")])
        return
    source = folder_of(root, int(n))
    for path in (source, Path(f"{source}.zip")) if what == "zip" else (source,):
        declare(path)
    for _ in range(ROUNDS):
        if what == "zip":
            timed("folder", [*check, str(source)])
            timed("zip", [*check, f"{source}.zip"])
        else:
            timed("before", [*check, str(source)], Path(tree))
            timed("now", [*check, str(source)])
            timed("now, two processes", [*check, str(source), "--jobs", "2"])


if __name__ == "__main__":
    main(*sys.argv[1:])
