"""DICOM: what a frame looks like, whose it is, what it is called, and that nothing else of a header gets out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from veilset.cli.main import main
from veilset.core.errors import DataError
from veilset.data import Dataset, check, declare, init, load, prepare
from veilset.data.formats.items import windowed
from veilset.data.reading import Reading

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("openjpeg")
from pydicom.dataset import Dataset as Header  # noqa: E402
from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid  # noqa: E402

WORD = Reading(label_from="BodyPartExamined")


def header(x: np.ndarray, patient: str = "P-0001", part: str = "CHEST", **facts: Any) -> Header:
    """A data set of x [H, W], [frames, H, W] or [H, W, 3]."""
    ds = Header()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientID, ds.PatientName, ds.BodyPartExamined = patient, f"Doe^Jane of {patient}", part
    ds.InstitutionName, ds.StudyDescription = "Saint Somewhere", "Mondayvisit zweifellos"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.Modality = "20200229", "121314", "S-77", "OT"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.ReferringPhysicianName, ds.PatientBirthDate = "Strange^Stephen", "19700101"
    colour = x.ndim == 3 and x.shape[-1] == 3
    ds.Rows, ds.Columns = x.shape[:2] if colour else x.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        ds.PlanarConfiguration = 0
    elif x.ndim == 3:
        ds.NumberOfFrames = len(x)
    ds.BitsAllocated = ds.BitsStored = 8 * x.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(x.dtype.kind == "i")
    ds.PixelData = x.tobytes() + b"\0" * (x.nbytes % 2)
    for name, value in facts.items():
        setattr(ds, name, value)
    if "BitsStored" in facts and "HighBit" not in facts:
        ds.HighBit = ds.BitsStored - 1
    return ds


def save(path: Path, ds: Header) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def deep(seed: int = 0, top: int = 4096, shape: tuple[int, ...] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(np.uint16)


def byte(seed: int = 0, shape: tuple[int, ...] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def hospital(root: Path, n: int = 8, **facts: Any) -> Path:
    """Two files each of n/2 patients: 12 bits stored in 16, two body parts."""
    for i in range(n):
        ds = header(deep(i), f"P-{i // 2:04}", ("CHEST", "SKULL")[i % 2], BitsStored=12, **facts)
        save(root / f"DOE_{i // 2:04}" / f"IM{i:04}", ds)
    return root


def shown(tmp_path: Path, ds: Header, **rules: Any) -> list[np.ndarray]:
    """What `prepare` makes of one data set, frame by frame."""
    save(tmp_path / "s" / "x.dcm", ds)
    out = prepare(tmp_path / "s", tmp_path / "out", reading=WORD, **rules)
    return [np.asarray(Image.open(p)).astype(int) for p in sorted(out.rglob("*.png"))]


def confirmed(source: Path) -> Dataset:
    path = declare.path_for(source)
    path.write_text(path.read_text().replace("confirmed = false", "confirmed = true"))
    assert [str(f) for f in check(source) if f.severity == "fault"] == []
    return load(source)


# ---------------------------------------------------------------------- values


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values - low) * (255 / (high - low))).clip(0, 255)


def test_12_bits_need_a_window_and_get_the_declared_one(tmp_path: Path) -> None:
    x = deep()
    with pytest.raises(DataError, match="has 12 bits and no window of its own"):
        shown(tmp_path, header(x, BitsStored=12))
    assert not (tmp_path / "out").exists()
    (made,) = shown(tmp_path, header(x, BitsStored=12), window=(100, 3000))
    assert (made == scaled(x.astype(float), 100, 3000)).all()


@pytest.mark.parametrize("kind", ["uint16", "int16", ">u2", "int32", "float32"])
def test_a_window_gives_the_same_however_values_are_stored(kind: str) -> None:
    x = np.array([[-1000, -3, 0, 1, 700], [99, 100, 3000, 3001, 32767]]).clip(0 if "u" in kind else None, None)
    for part in (x.astype(kind), x.astype(kind)[:, ::2]):
        assert (windowed(part, 100, 3000.5) == scaled(part.astype(float), 100, 3000.5)).all()


def test_bits_above_those_stored_are_not_looked_at(tmp_path: Path) -> None:
    x = deep()
    (made,) = shown(tmp_path, header(x | 0xA000, BitsStored=12), window=(0, 4095))
    assert (made == scaled(x.astype(float), 0, 4095)).all()


def test_signed_values_with_slope_and_intercept_go_through_the_first_window_of_the_file(tmp_path: Path) -> None:
    x = (deep().astype(int) - 2048).astype(np.int16)
    ds = header(x, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[40, 7], WindowWidth=[400, 3])
    (made,) = shown(tmp_path, ds)
    values = x * 2.0 - 100
    # PS3.3 C.11.2.1.2.1
    wanted = np.clip((values - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(made - wanted).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("how", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions(tmp_path: Path, how: str) -> None:
    x = deep()
    (made,) = shown(tmp_path, header(x, BitsStored=12, WindowCenter=2000, WindowWidth=900, VOILUTFunction=how))
    part = (x - 2000.0) / 900
    wanted = np.clip(part + 0.5, 0, 1) * 255 if how == "LINEAR_EXACT" else 255 / (1 + np.exp(-4 * part))
    assert np.abs(made - wanted).max() <= 0.5 + 1e-9


def test_a_table_of_values_is_used(tmp_path: Path) -> None:
    lut = Header()
    lut.LUTDescriptor, lut.LUTData = [256, 0, 8], list(range(255, -1, -1))
    x = byte()
    ds = header(x)
    ds.VOILUTSequence = pydicom.Sequence([lut])
    ds["VOILUTSequence"].value[0]["LUTDescriptor"].VR = "US"
    ds["VOILUTSequence"].value[0]["LUTData"].VR = "US"
    (made,) = shown(tmp_path, ds)
    assert (made == 255 - x).all()


@pytest.mark.parametrize("window", [None, (0, 255)])
def test_monochrome1_is_inverted(tmp_path: Path, window: tuple[float, float] | None) -> None:
    x = byte()
    (made,) = shown(tmp_path, header(x, PhotometricInterpretation="MONOCHROME1"), window=window)
    assert (made == 255 - x).all()


SPACING = [
    ({"PixelSpacing": [2, 1]}, (12, 5)),
    ({"PixelSpacing": [0.5, 1]}, (6, 10)),
    ({"ImagerPixelSpacing": [0.3, 0.1]}, (18, 5)),
    ({"PixelAspectRatio": [1, 2]}, (6, 10)),
    ({"PixelSpacing": [1.001, 1]}, (6, 5)),
    ({"PixelSpacing": [0, 1]}, (6, 5)),
]


@pytest.mark.parametrize(("facts", "shape"), SPACING)
def test_pixels_that_are_not_square_are_a_fault_that_prepare_mends(
    tmp_path: Path, facts: dict[str, Any], shape: tuple[int, int]
) -> None:
    x = np.repeat(byte()[:, :1], 5, 1)
    (made,) = shown(tmp_path, header(x, **facts))
    assert made.shape == shape and (made[:, 0] == made[:, -1]).all()
    init(tmp_path / "s", WORD)
    wrong = [str(f) for f in check(tmp_path / "s") if "not square" in f.what and "veilset data prepare" in f.todo]
    assert len(wrong) == (shape != (6, 5))


def test_each_frame_is_an_image_of_the_patient(tmp_path: Path) -> None:
    x = byte(shape=(3, 6, 5))
    made = shown(tmp_path, header(x))
    assert len(made) == 3 and all((a == b).all() for a, b in zip(made, x, strict=True))
    rows = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert rows[0] == "file,label,unit" and all(r.endswith(".png,CHEST,0") for r in rows[1:])


def test_frames_of_an_enhanced_file_have_windows_of_their_own(tmp_path: Path) -> None:
    x, frames = deep(shape=(2, 6, 5)), []
    for centre in (1000, 3000):
        voi, item = Header(), Header()
        voi.WindowCenter, voi.WindowWidth = centre, 101
        item.FrameVOILUTSequence = pydicom.Sequence([voi])
        frames.append(item)
    ds = header(x, BitsStored=12)
    ds.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    made = shown(tmp_path, ds)
    for a, b, c in zip(made, x, (1000, 3000), strict=True):
        assert np.abs(a - np.clip((b - (c - 0.5)) / 100 + 0.5, 0, 1) * 255).max() <= 0.5 + 1e-9


def test_colour_by_ybr_and_by_palette(tmp_path: Path) -> None:
    rgb = byte(shape=(6, 6, 3))
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    (made,) = shown(tmp_path, header(ycc, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(made - np.asarray(Image.fromarray(ycc, "YCbCr").convert("RGB"))).max() <= 2
    shutil.rmtree(tmp_path / "out")
    index, tables = byte(), np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    ds = header(index, PhotometricInterpretation="PALETTE COLOR")
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", (table * 257).astype("<u2").tobytes())
    (made,) = shown(tmp_path, ds)
    assert (made == tables[:, index].transpose(1, 2, 0)).all()


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_compressed_files_show_the_same(tmp_path: Path, syntax: str) -> None:
    x = deep(shape=(64, 64))
    ds = header(x, BitsStored=12)
    ds.compress(getattr(pydicom.uid, syntax))
    (made,) = shown(tmp_path, ds, window=(0, 4095))
    assert (made == scaled(x.astype(float), 0, 4095)).all()


# ---------------------------------------------------------------------- the set


def test_init_says_what_it_found_and_drafts_the_command_that_makes_it_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hospital(Path("ward"))
    assert main(["data", "init", "ward"]) == 2
    assert "--label-from TAG (for example BodyPartExamined)" in capsys.readouterr().err
    assert main(["data", "init", "ward", "--label-from", "BodyPartExamined"]) == 0
    told = capsys.readouterr().out
    assert "found 4 patients, 8 images, 2 classes, 6 x 5, grey, 12 bits stored in 16" in told
    assert "`veilset data prepare ward --out ward-prepared --window=0,4095`" in told
    declared = declare.read(Path("ward"))
    assert declared.info.unit == "one patient" and declared.choice.unit_column == "PatientID"
    assert main(["data", "check", "ward", "--json"]) == 1
    assert main(["data", "prepare", "ward", "--out", "ward-prepared", "--window=0,4095"]) == 0
    data = confirmed(Path("ward-prepared"))
    assert data.info.classes == ("CHEST", "SKULL") and data.train._open().units.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_files_that_fit_open_as_they_are(tmp_path: Path) -> None:
    hospital(tmp_path / "s", WindowCenter=2048, WindowWidth=4096)
    init(tmp_path / "s", WORD)
    opened = confirmed(tmp_path / "s").train._open()
    assert opened.units.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and opened.labels.tolist() == [0, 1] * 4
    out = np.empty((8, 1, 6, 5), np.uint8)
    opened.records.read(np.arange(8), out)
    assert np.abs(out[3, 0] - np.clip((deep(3) - 2047.5) / 4095 + 0.5, 0, 1) * 255).max() <= 0.5 + 1e-9


def test_nothing_of_a_header_leaves_but_the_declared_label(tmp_path: Path) -> None:
    root = hospital(tmp_path / "s", 40, WindowCenter=2048, WindowWidth=4096)
    init(root, WORD)
    out = confirmed(prepare(root, tmp_path / "out", size=8)).info and tmp_path / "out"
    run, release = tmp_path / "run", tmp_path / "release"
    words = [
        "fit",
        "dp-merf",
        "--data",
        str(out),
        "--epsilon",
        "5",
        "--delta",
        "1e-3",
        "--out",
        str(run),
        "--steps",
        "2",
    ]
    assert main(words) == 0 and main(["sample", str(run), "--out", str(release), "-n", "4"]) == 0
    strings = set[str]()
    for path in root.rglob("IM*"):
        for e in pydicom.dcmread(path).iterall():
            if e.VR not in ("OW", "OB", "SQ", "US"):
                strings |= {w for w in [str(e.value), *str(e.value).replace("^", " ").split()] if len(w) >= 4}
        strings |= {path.name, path.parent.name}
    strings -= {"CHEST", "SKULL"}
    assert len(strings) > 100
    for place in (out, release):
        for path in place.rglob("*"):
            data = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
            if path.suffix != ".png":
                assert [s for s in strings if s.encode() in data] == [], path
            else:
                assert list(Image.open(path).info) == []


def test_an_index_says_which_files_belong_to_the_set(tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    hospital(tmp_path / "s")
    fs = FileSet()
    for path in sorted((tmp_path / "s").rglob("IM*"))[:6]:
        fs.add(path)
    fs.write(tmp_path / "disc")
    init(tmp_path / "disc", Reading(label_from="BodyPartExamined", window=(0, 4095)))
    assert len(confirmed(tmp_path / "disc").train._open().labels) == 6
    next(p for p in (tmp_path / "disc").rglob("*") if p.is_file() and "D" not in p.name and "t" not in p.name).unlink()
    assert any("is not there; add the file" in str(f) for f in check(tmp_path / "disc"))


def test_folders_are_classes_and_splits_when_that_is_said(tmp_path: Path) -> None:
    for i, (split, name) in enumerate((s, c) for s in ("train", "val", "test") for c in ("ill", "well")):
        save(tmp_path / "s" / split / name / f"{i}.dcm", header(byte(i), f"P{i}"))
    init(tmp_path / "s", Reading(label_from="folder"))
    data = confirmed(tmp_path / "s")
    assert data.info.classes == ("ill", "well") and len(data.train._open().labels) == 2
    assert len(data.test._open().labels) == 2


def studies(root: Path) -> tuple[Path, list[str]]:
    uids = []
    for i in range(4):
        ds = header(byte(i), f"P{i}")
        uids.append(ds.StudyInstanceUID)
        save(root / f"{i}.dcm", ds)
    return root, uids


def test_a_table_names_studies_their_label_and_their_split(tmp_path: Path) -> None:
    root, uids = studies(tmp_path / "s")
    rows = "".join(f"{u},{'ill' if i % 2 else 'well'},{'test' if i > 1 else 'train'}\n" for i, u in enumerate(uids))
    (root / "findings.csv").write_text("Study ID,finding,split\n" + rows)
    with pytest.raises(DataError, match='no column label; choose the label by label_from.*one of "finding", "split"'):
        init(root, Reading(labels="findings.csv"))
    init(root, Reading(labels="findings.csv", label_from="finding"))
    data = confirmed(root)
    assert data.info.classes == ("ill", "well") and data.train._open().labels.tolist() == [1, 0]
    assert data.test._open().labels.tolist() == [1, 0]
    (root / "findings.csv").write_text("Study ID,finding,split\n" + rows.replace(uids[0], "1.2.3.4"))
    told = [str(f) for f in check(root) if f.severity == "fault"]
    assert told == [
        "0.dcm: label is missing: no row in findings.csv; add a row, or move the file away",
        'findings.csv: StudyInstanceUID "1.2.3.4" is not in this set; correct or remove the row',
    ]


# ---------------------------------------------------------------------- bad input


def faults(root: Path) -> list[str]:
    return [str(f) for f in check(root) if f.severity == "fault"]


def spoilt(root: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of `prepare`, which leaves nothing."""
    words = ["data", "prepare", str(root), "--out", str(root.parent / "made"), "--label-from", "BodyPartExamined"]
    assert main(words) == 2 and not (root.parent / "made").exists()
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    return told


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    for i in range(3):
        save(tmp_path / "s" / f"{i}.dcm", header(byte(i), f"P{i}"))
    init(tmp_path / "s", WORD)
    assert faults(tmp_path / "s") == []
    return tmp_path / "s"


@pytest.mark.parametrize(("keep", "message"), [(-10, "cannot be decoded"), (200, "no pixel data"), (3, "truncated")])
def test_truncated(ward: Path, capfd: pytest.CaptureFixture[str], keep: int, message: str) -> None:
    path = ward / "1.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    assert len(faults(ward)) == 1 and faults(ward)[0].startswith("1.dcm: ") and message in faults(ward)[0]
    assert message in spoilt(ward, capfd)


def test_missing_pixel_data(ward: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ds = header(byte(1), "P1")
    del ds.PixelData
    save(ward / "1.dcm", ds)
    assert faults(ward) == ["1.dcm: has no pixel data; restore or remove this file"]
    assert "1.dcm: has no pixel data" in spoilt(ward, capfd)


def test_frames_of_unequal_size(ward: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(ward / "1.dcm", header(byte(1, (8, 8)), "P1"))
    (told,) = faults(ward)
    assert told.startswith("1.dcm: is [1, 8, 8], declared are [1, 6, 5]; convert the set") and "--size 6x5`" in told
    assert "1.dcm: sizes are mixed (0.dcm has another); give a size (--size)" in spoilt(ward, capfd)


def test_a_patient_in_train_and_test(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "s" / split / "0.dcm", header(byte(), "P0"))
    init(tmp_path / "s", WORD)
    assert faults(tmp_path / "s") == ["s: 1 units are in both splits; give all images of a unit to one split"]


def test_a_missing_patient_is_named(ward: Path) -> None:
    save(ward / "1.dcm", header(byte(1), ""))
    assert faults(ward) == ["1.dcm: PatientID is missing; give the unit id (for example of the patient)"]


def test_an_index_that_points_outside(tmp_path: Path) -> None:
    index = Header()
    index.file_meta = FileMetaDataset()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.SOPClassUID, index.SOPInstanceUID = "1.2.840.10008.1.3.10", generate_uid()
    record = Header()
    record.ReferencedFileID, record.DirectoryRecordType = ["..", "secret"], "IMAGE"
    index.DirectoryRecordSequence = pydicom.Sequence([record])
    save(tmp_path / "secret", header(byte()))
    save(tmp_path / "s" / "DICOMDIR", index)
    with pytest.raises(DataError, match=r"'../secret' is not a path inside the folder"):
        init(tmp_path / "s", WORD)


def test_a_tag_that_is_none_is_suggested(ward: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'BodyPartExamined'"):
        prepare(ward, ward.parent / "made", reading=Reading(label_from="BodyPartExamine"))


def test_without_the_library_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "s" / "0.dcm", header(byte()))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pydicom is needed to read this set: pip install 'veilset\[dicom\]'"):
        init(tmp_path / "s", WORD)


@pytest.mark.parametrize("tag", ["PatientID", "PatientName", "StudyInstanceUID", "StudyDate"])
def test_a_tag_that_says_who_it_is_is_no_label(ward: Path, tag: str) -> None:
    with pytest.raises(DataError, match="says who or when it was; a label becomes public"):
        prepare(ward, ward.parent / "made", reading=Reading(label_from=tag))


def test_more_frames_than_anybody_has(ward: Path) -> None:
    ds = header(byte(1), "P1")
    ds.NumberOfFrames = 10**9
    save(ward / "1.dcm", ds)
    assert faults(ward) == ["1.dcm: says that it has 1000000000 frames; restore it; 1 to 100000 are read"]
