"""DICOM, by pydicom: a folder of files or one with a DICOMDIR; every frame is an image, and a patient the unit.

Grey values go through rescale slope and intercept (or the modality table), then through the declared window or the
file's own (PS3.3 C.7.6.3, C.11.1, C.11.2), and MONOCHROME1 is inverted. What a header says besides the label and, as a
digest, the patient, stays here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from veilset.core.errors import DataError, suggest
from veilset.data.columns import Extra, beside
from veilset.data.decode import Look, Unfit, decoding
from veilset.data.faults import Faults
from veilset.data.formats.folder import NO_RECORDS, below, class_of, first_file, note_litter
from veilset.data.formats.items import Item, ItemSource, inside, library, text, windowed
from veilset.data.formats.lookup import Lookup
from veilset.data.people import looks_like_people
from veilset.data.reading import part_of
from veilset.data.records import Array

INDEX = "DICOMDIR"
PATIENT, FOLDER = "PatientID", "folder"
# How a column of a table of labels may be called -> the tag that it holds; the most specific first.
KEYS = {
    **dict.fromkeys(("file", "filename", "path"), "file"),
    **dict.fromkeys(("sopinstanceuid", "sop", "instance", "image", "imageid"), "SOPInstanceUID"),
    **dict.fromkeys(("seriesinstanceuid", "series", "seriesid"), "SeriesInstanceUID"),
    **dict.fromkeys(("studyinstanceuid", "study", "studyid"), "StudyInstanceUID"),
    **dict.fromkeys(("accessionnumber", "accession"), "AccessionNumber"),
    **dict.fromkeys(("patientid", "patient"), PATIENT),
}
HEADER = ("NumberOfFrames", "Rows", "Columns", "BitsStored", "BitsAllocated", *list(dict.fromkeys(KEYS.values()))[1:])
NUMBERS = ("NumberOfFrames", "Rows", "Columns", "BitsStored")
LIKELY = ("Modality", "BodyPartExamined", "ViewPosition", "ImageLaterality", "Laterality", "SeriesDescription")
PERSONAL = ("PN", "UI", "DA", "TM", "DT")  # kinds of values that are names, identifiers, dates and times
MOST_FRAMES = 100_000  # of one file
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, or is called so."""
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return True
    with path.open("rb") as f:
        return f.read(132)[128:] == b"DICM"


def is_set(path: Path) -> bool:
    """Whether a folder looks like a set of DICOM files: it has an index, or the first file below it is one."""
    if (path / INDEX).is_file():
        return True
    first = first_file(path)
    return first is not None and is_dicom(first)


class DicomSource(ItemSource):
    """A folder of DICOM files, or one such file."""

    uses: tuple[str, ...] = ("label_from", "labels", "window")

    def has_test(self) -> bool:
        """Whether a folder at the top is called test, or the table of labels has splits."""
        tops = [p.name for p in self._path.iterdir() if p.is_dir()] if self._path.is_dir() else []
        return any(part_of(n) == 1 for n in tops) or bool(self._table and self._table.splits)

    def extras(self) -> list[Extra]:
        """The patient, and columns of the table of labels."""
        table = self._table.extras() if self._table else []
        tables = beside(self._path, (self._reading.labels, INDEX)) if self._path.is_dir() else []
        return [Extra(PATIENT, "tag", self._path.name, PATIENT, default=True), *table, *tables]

    @cached_property
    def _table(self) -> Lookup | None:
        root = self._path if self._path.is_dir() else self._path.parent
        return Lookup(root, self._reading, KEYS) if self._reading.labels else None

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every frame of every file."""
        pydicom = library("pydicom", "dicom")
        note_litter(self._path, faults)
        label_of, table, tags = self._label_rule(pydicom), self._table, None
        if headers:
            tags = [*HEADER, self._reading.label_from] if label_of == self._by_tag else list(HEADER)
        for path in self._files(pydicom, faults):
            where = path.relative_to(self._path).as_posix() if path != self._path else path.name
            ds = _read(pydicom, path, headers, tags)
            if ds is None or "Rows" not in ds or not (headers or _has_pixels(ds)):
                what = "cannot be read: truncated, or not DICOM" if ds is None else "has no pixel data"
                faults.add(where, what, "restore or remove this file")
                continue
            found = table.get(_key(ds, table.key, where), where, faults) if table else None
            if table and found is None:
                continue
            label, part, row = found if found else (label_of(ds, where), self._part(where), dict[str, str]())
            row[PATIENT] = text(ds.get(PATIENT))
            if not self.bits and int(ds.get("BitsStored") or 8) > 8:
                self.bits = f"{ds.BitsStored} bits stored in {ds.BitsAllocated}"
            n = int(ds.get("NumberOfFrames") or 1)
            if not 1 <= n <= MOST_FRAMES:
                faults.add(where, f"says that it has {n} frames", f"restore it; 1 to {MOST_FRAMES} are read")
                continue
            for i in range(n):
                pixels = partial(self._pixels, pydicom, path if headers else ds, i)
                yield Item(f"{where} frame {i + 1}" if n > 1 else where, label, part, pixels, row, aspect(ds, i))
        if table:
            table.report_unseen(faults)

    def _pixels(self, pydicom: Any, source: Any, i: int) -> Array:
        """Frame i of a file or of what was read of it."""
        ds = _read(pydicom, source, False, None) if isinstance(source, Path) else source
        if ds is None or not _has_pixels(ds):
            raise Unfit("has no pixel data")
        try:
            with decoding():  # a value of the header is converted when it is asked for
                return frame(ds, i, self._reading.window)
        except Unfit as e:
            if e.options:
                self.window = e.options.removeprefix("--window=")
            raise

    def _look(self, item: Item) -> Look:
        """As the base, also of one that has no window: a draft proposes one."""
        try:
            return super()._look(item)
        except DataError:
            ds = _read(library("pydicom", "dicom"), item.pixels.args[1], True, None)  # type: ignore[attr-defined]
            if not self.window or ds is None:
                raise
            return Look((int(ds.get("SamplesPerPixel") or 1), int(ds.Rows), int(ds.Columns)), self.bits, self.window)

    def _files(self, pydicom: Any, faults: Faults) -> Iterator[Path]:
        """The files that the index lists, or all below the folder that are DICOM."""
        if self._path.is_file():
            yield self._path
        elif (self._path / INDEX).is_file():
            yield from self._listed(pydicom, faults)
        else:
            for path in below(self._path):
                if is_dicom(path):
                    yield path
                elif path.suffix.lower() not in NO_RECORDS:
                    faults.note(path.relative_to(self._path).as_posix(), "is no DICOM file: left out", "nothing to do")

    def _listed(self, pydicom: Any, faults: Faults) -> Iterator[Path]:
        """The images of a DICOMDIR, which must lie below it."""
        index = _read(pydicom, self._path / INDEX, False, None)
        records = index.get("DirectoryRecordSequence") if index is not None else None
        if records is None:
            raise DataError(f"{self._path / INDEX}: lists no files; restore it, or remove it to read the whole folder")
        for record in records:
            parts = record.get("ReferencedFileID")
            if parts is None:
                continue
            name = "/".join([parts] if isinstance(parts, str) else list(parts))
            if not inside(name):
                faults.add(INDEX, f"{name!r} is not a path inside the folder", "restore the index")
            elif not (self._path / name).is_file():
                faults.add(INDEX, f"{name} is not there", "add the file, or restore the index")
            else:
                yield self._path / name

    # ------------------------------------------------------------------ labels

    def _label_rule(self, pydicom: Any) -> Callable[[Any, str], str]:
        """How the label of a file is found where no table says it."""
        wanted = self._reading.label_from
        if self._table:
            return lambda ds, where: ""
        if wanted == FOLDER:
            return lambda ds, where: class_of(where)[0]
        if not wanted:
            raise DataError(
                f"{self._path}: nothing says what the label is; give --label-from TAG (for example {LIKELY[1]}), "
                f"--label-from {FOLDER} for sub-folders, or --labels TABLE.csv"
            )
        if not pydicom.datadict.tag_for_keyword(wanted):
            near = suggest(wanted, pydicom.datadict.keyword_dict)
            raise DataError(f"label_from = {wanted!r}: no tag of DICOM's dictionary, nor {FOLDER!r}.{near} Name one")
        if pydicom.datadict.dictionary_VR(wanted) in PERSONAL or looks_like_people(wanted):
            raise DataError(f"label_from = {wanted!r}: says who or when it was; a label becomes public: name another")
        return self._by_tag

    def _by_tag(self, ds: Any, where: str) -> str:
        """The value of the declared tag, several joined by " and "."""
        value = ds.get(self._reading.label_from)
        several = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
        return " and ".join(map(text, value)) if several else text(value)

    def _part(self, where: str) -> int:
        """The part by the first folder, training if that is none."""
        part = part_of(PurePosixPath(where).parts[0])
        return 0 if part is None else part


def _key(ds: Any, key: str, where: str) -> str:
    return where if key == "file" else text(ds.get(key))


def _read(pydicom: Any, path: Path, headers: bool, tags: list[str] | None) -> Any:
    """A data set, or None if it cannot be read; with `headers` without its pixels, and only some tags."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, stop_before_pixels=headers, specific_tags=tags)
            for name in tags or (*HEADER, "DirectoryRecordSequence"):
                value = ds.get(name)  # converted when it is asked for, so ask now
                if name in NUMBERS and value is not None:
                    int(value)
            return ds
    except OSError:
        raise
    except Exception:  # pydicom raises many types for damaged files
        return None


def _has_pixels(ds: Any) -> bool:
    return any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


# ---------------------------------------------------------------------- from stored to shown values


def frame(ds: Any, i: int, window: tuple[float, float] | None) -> Array:
    """Frame i as it is shown: uint8 [H, W], or [H, W, 3] for colour.

    Args:
        ds: a pydicom data set with pixels.
        i: which frame, from 0.
        window: (low, high) of rescaled values that become 0 and 255, in place of the file's own.

    Raises:
        Unfit: no pixels, damaged ones, or values of more than 8 bits for which nobody gave a window.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    kind, stored = str(ds.get("PhotometricInterpretation", "")), int(ds.get("BitsStored") or 8)
    if int(ds.get("HighBit") or stored - 1) != stored - 1:
        raise Unfit(f"stores {stored} bits up to bit {ds.HighBit}, a layout that DICOM retired; rewrite the file")
    with decoding():
        try:
            values = pixel_array(ds, index=i)
        except RuntimeError as e:
            if "missing" not in str(e):
                raise
            raise Unfit("is compressed, and the plug-in for it is missing: pip install 'veilset[dicom]'") from None
    if kind == "PALETTE COLOR":
        with decoding():
            values = apply_color_lut(values, ds)
        return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
    if values.ndim == 3:
        if values.dtype == np.uint8 and not window:
            return values
        if not window:
            raise Unfit(f"has {stored} bits a channel and no window", True, f"--window=0,{2**stored - 1}")
        return windowed(values, *window)
    shown = _grey(_rescaled(values, ds, i), ds, i, window)
    return 255 - shown if kind == "MONOCHROME1" else shown


def _found(ds: Any, i: int, group: str, name: str) -> Any:
    """An element of the file, or of the functional groups of frame i of an enhanced one."""
    if name in ds and ds.get(name) is not None:
        return ds.get(name)
    for place, at in zip(GROUPS, (i, 0), strict=True):
        groups = ds.get(place)
        inner = groups[at].get(group) if groups and at < len(groups) else None
        if inner and inner[0].get(name) is not None:
            return inner[0].get(name)
    return None


def aspect(ds: Any, i: int) -> float:
    """Height of a pixel of frame i / its width: 1 if the file does not say it, or they differ by at most 1 %."""
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    found = (_found(ds, i, "PixelMeasuresSequence", name) for name in names)
    high, wide = next(([float(v) for v in pair] for pair in found if pair is not None and len(pair) == 2), [1.0, 1.0])
    ratio = high / wide if high > 0 and wide > 0 else 1.0
    return ratio if abs(ratio - 1) > 0.01 else 1.0


def _rescaled(values: Array, ds: Any, i: int) -> Array:
    """Stored values in the units of the modality: by its table, or slope and intercept."""
    from pydicom.pixels import apply_modality_lut

    if "ModalityLUTSequence" in ds:
        with decoding():
            table: Array = apply_modality_lut(values, ds)
            return table
    slope = _found(ds, i, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = _found(ds, i, "PixelValueTransformationSequence", "RescaleIntercept")
    if slope is None and intercept is None:
        return values
    return values.astype(np.float64) * float(1 if slope is None else slope) + float(intercept or 0)


def _grey(values: Array, ds: Any, i: int, window: tuple[float, float] | None) -> Array:
    """Rescaled values as 0..255, by the declared window, the file's table, the file's window, or its 8 bits."""
    if window:
        return windowed(values, *window)
    if "VOILUTSequence" in ds:
        from pydicom.pixels import apply_voi

        with decoding():
            return windowed(apply_voi(values, ds), 0, 2 ** int(ds.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    centre, width = (_found(ds, i, "FrameVOILUTSequence", name) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None:
        how = str(_found(ds, i, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR")
        return voi(values, _first(centre), _first(width), how)
    stored = int(ds.get("BitsStored") or 8)
    if stored <= 8 and values.dtype == np.uint8:
        return values if stored == 8 else windowed(values, 0, 2**stored - 1)
    raise Unfit(f"has {stored} bits and no window of its own", True, f"--window={_range(ds, i, stored)}")


def _range(ds: Any, i: int, stored: int) -> str:
    """The values that a file of this format can hold, rescaled, as an option."""
    low = -(2 ** (stored - 1)) if int(ds.get("PixelRepresentation") or 0) else 0
    ends = _rescaled(np.array([low, low + 2**stored - 1]), ds, i).astype(float)
    return f"{min(ends):g},{max(ends):g}"


def _first(value: Any) -> float:
    """A number, or the first of several: a file may offer windows to choose from."""
    several = not isinstance(value, str | int | float) and hasattr(value, "__getitem__")
    return float(value[0] if several else value)


def voi(values: Array, centre: float, width: float, how: str = "LINEAR") -> Array:
    """Values through a window, as uint8 (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: rescaled values, any shape.
        centre, width: of the window; the width is at least 1 for LINEAR, above 0 otherwise.
        how: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        Unfit: a width out of range, or another function.
    """
    if how not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width < (1 if how == "LINEAR" else 1e-12):
        raise Unfit(f"has a window of width {width:g} by function {how[:40]!r}, which DICOM does not know")
    if how == "SIGMOID":
        with np.errstate(over="ignore"):
            return windowed(1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width)), 0, 1)
    if how == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.where(values > centre, 255, 0).astype(np.uint8)
    return windowed(values, centre - width / 2, centre + width / 2)
