"""Columns, arrays and tables beside pictures and labels: named, offered as the unit, and decided by the owner."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import class_folder, confirm, idx_pair, pixels, table_folder
from test_data_celeba import celeba, declared

from veilset.core.errors import DataError
from veilset.data import check, declare, draft, init, load, prepare
from veilset.data.people import looks_like_people

WHO = ["p1", "p1", "p2", "p2", "p2", "p3"]
IDS = np.array([1, 1, 2, 2, 2, 3])
Y = np.array([0, 1] * 3)
TABLE = "image,patient_id\nx,1\n"


def found(source: Path, severity: str = "fault") -> list[str]:
    return [str(f) for f in check(source) if f.severity == severity]


def units(source: Path) -> list[int] | None:
    ids = load(source).train._open().units
    return None if ids is None else ids.tolist()


def say(source: Path, lines: str) -> None:
    """Add lines to a declaration, in place of the drafted ones if there are any."""
    path = declare.path_for(source)
    kept = [t for t in path.read_text().splitlines() if not t.startswith(tuple(declare.CHOICE))]
    path.write_text("\n".join([*kept, lines]).replace("confirmed = false", "confirmed = true"))


def table(tmp_path: Path) -> Path:
    return table_folder(tmp_path / "s", pixels(6), **{"Patient ID": WHO})


def quoted_table(tmp_path: Path) -> Path:
    """As a spreadsheet writes it: a mark in front, everything in quotes."""
    root = table_folder(tmp_path / "s", pixels(6), **{" Patient ID ": WHO})
    rows = list(csv.reader((root / "labels.csv").open()))
    with open(root / "labels.csv", "w", newline="", encoding="utf-8-sig") as f:
        csv.writer(f, quoting=csv.QUOTE_ALL).writerows(rows)
    return root


def split_table(tmp_path: Path) -> Path:
    split = ["train"] * 6 + ["test"] * 2
    return table_folder(tmp_path / "s", pixels(8), split=split, PatientID=[*WHO, "p8", "p9"])


def arrays(tmp_path: Path) -> Path:
    np.savez(tmp_path / "s.npz", x=pixels(6), y=Y, subject_ids=IDS)
    return tmp_path / "s.npz"


def split_arrays(tmp_path: Path) -> Path:
    parts = {"x_train": pixels(6), "y_train": Y, "groups_train": IDS.astype("U2")}
    np.savez(tmp_path / "s.npz", **parts, x_test=pixels(2), y_test=Y[:2], groups_test=np.array(["8", "9"]))
    return tmp_path / "s.npz"


def other_arrays(tmp_path: Path) -> Path:
    """The train split alone has ids; the archive's own class names are no column."""
    parts = {"train_images": pixels(6), "train_labels": Y, "train_case": IDS, "classes": np.array(["cat", "dog"])}
    np.savez(tmp_path / "s.npz", **parts, test_images=pixels(2), test_labels=Y[:2])
    return tmp_path / "s.npz"


OFFERED = [
    (table, "Patient ID"),
    (quoted_table, "Patient ID"),
    (split_table, "PatientID"),
    (arrays, "subject_ids"),
    (split_arrays, "groups"),
    (other_arrays, "train_case"),
]


@pytest.mark.parametrize(("make", "name"), OFFERED)
def test_a_column_of_people_is_offered_and_must_be_decided(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    source = make(tmp_path)
    text = init(source).read_text()
    for words in (f'#     unit_column = "{name}"', "#     units = 10", f'#     ignored = ["{name}"]', "is refused"):
        assert words in text
    assert found(source)[0] == found(source)[-1] and f'"{name}" looks like people' in found(source)[0]
    say(source, 'unit_column = ""\nignored = []')
    with pytest.raises(DataError, match=f'"{name}" looks like people') as e:
        load(source)
    for words in ("each image counts as a unit", f'unit_column = "{name}"', f'ignored = ["{name}"]'):
        assert words in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("make", "name"), OFFERED)
def test_an_old_declaration_is_refused_until_it_decides(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    source = make(tmp_path)
    confirm(source)
    with pytest.raises(DataError, match=f'"{name}" looks like people'):
        load(source)
    say(source, f'ignored = ["{name.upper()}"]')
    assert found(source) == [] and units(source) is None
    confirm(source, units=3, unit="one patient", max_images_per_unit=3)
    say(source, f'unit_column = " {name.lower()} "')
    assert found(source) == [] and units(source) == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(("make", "name"), [(split_table, "PatientID"), (split_arrays, "groups")])
def test_a_chosen_unit_in_both_splits_is_a_fault(tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    source = make(tmp_path)
    confirm(source, units=3, unit="one patient", max_images_per_unit=3)
    say(source, f'unit_column = "{name}"')
    assert found(source) == []
    if source.suffix:
        held = dict(np.load(source))
        np.savez(source, **held | {"groups_test": np.array(["8", "3"])})
    else:
        (source / "labels.csv").write_text((source / "labels.csv").read_text().replace("p9", "p3"))
    assert "both splits" in found(source)[0]


def test_test_arrays_without_ids_are_said(tmp_path: Path) -> None:
    source = other_arrays(tmp_path)
    confirm(source, units=3, unit="one case", max_images_per_unit=3)
    say(source, 'unit_column = "train_case"')
    assert any("no entries for the test split" in n for n in found(source, "note")) and not found(source)
    held = dict(np.load(source))
    np.savez(source, **held | {"case": IDS})
    say(source, 'unit_column = "case"')
    assert "train_case and case are both for the train split" in found(source)[0]


def test_every_other_name_is_a_remark_and_a_warning(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6), age=["3"] * 6, patient_age=["4"] * 6)
    text = init(root).read_text()
    assert '# Not used: "age", "patient_age".' in text and "looks like" not in text
    say(root, "")
    assert 'columns "age", "patient_age" are not used' in found(root, "note")[0] and not found(root)
    with pytest.warns(UserWarning, match='"age", "patient_age" are not used'):
        load(root)
    say(root, 'ignored = ["age", "patient_age", "agee"]')
    assert '"agee" is not in this set' in found(root, "note")[0]
    say(root, 'ignored = ["age", "patient_age"]')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(root)


def test_all_names_of_people_are_decided_not_only_one(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6), unit=WHO, lesion=list("abcdef"))
    assert 'unit_column = "unit"' in init(root).read_text()
    confirm(root, units=3, unit="one patient", max_images_per_unit=3)
    with pytest.raises(DataError, match='"lesion" looks like people.*the unit is "unit"'):
        load(root)
    say(root, 'ignored = ["lesion"]')
    assert units(root) == [0, 0, 1, 1, 1, 2]
    say(root, 'unit_column = "lesion"')
    with pytest.raises(DataError, match='column "unit" looks like people'):
        load(root)
    confirm(root)
    say(root, 'ignored = ["lesion", "unit"]')
    assert units(root) is None


@pytest.mark.parametrize(
    ("lines", "facts", "message"),
    [
        ('unit_column = "patient"', {"unit": "one patient"}, 'not in this set; it has "Patient ID"'),
        ('unit_column = "Patient ID"', {}, "say what a unit is"),
        ('ignored = ["Patient ID"]', {"unit": "one patient"}, "each image counts as a unit"),
        ('unit_column = "Patient ID"\nignored = ["patient id"]', {}, "names the unit_column too"),
        ("unit_column = 3", {}, "the name of a column in quotes"),
        ('ignored = "Patient ID"', {}, "a list of column names"),
    ],
)
def test_choices_that_contradict(tmp_path: Path, lines: str, facts: dict[str, object], message: str) -> None:
    root = table(tmp_path)
    confirm(root, **facts)
    say(root, lines)
    with pytest.raises(DataError) as e:
        load(root)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_row_without_its_person_is_named(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6), patient=["a", "a", "", "b", "b", "c"])
    confirm(root, units=3, unit="one patient", max_images_per_unit=3)
    say(root, 'unit_column = "patient"')
    assert found(root)[0].startswith("labels.csv line 4: patient is missing")


def test_a_column_that_vanishes_after_loading_is_noticed(tmp_path: Path) -> None:
    """Else each image would silently count as a unit."""
    root = table(tmp_path)
    confirm(root, units=3, unit="one patient", max_images_per_unit=3)
    say(root, 'unit_column = "Patient ID"')
    data = load(root)
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("Patient ID", "other"))
    with pytest.raises(DataError, match="unit_column"):
        data.train._open()


def test_ids_that_cannot_be_read_are_offered_all_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=pixels(6), y=Y, patient=np.array(WHO, object))
    assert 'unit_column = "patient"' in init(tmp_path / "s.npz").read_text()
    confirm(tmp_path / "s.npz", unit="one patient")
    say(tmp_path / "s.npz", 'unit_column = "patient"')
    assert found(tmp_path / "s.npz")[0].startswith("array patient: holds Python objects")


# ---------------------------------------------------------------------- tables that no reader uses


def in_folders(tmp_path: Path) -> Path:
    return class_folder(tmp_path / "s", pixels(6))


def in_split_folders(tmp_path: Path) -> Path:
    class_folder(tmp_path / "s" / "train", pixels(6))
    class_folder(tmp_path / "s" / "test", pixels(6))
    return tmp_path / "s"


def in_table(tmp_path: Path) -> Path:
    return table_folder(tmp_path / "s", pixels(6))


def in_idx(tmp_path: Path) -> Path:
    return idx_pair(tmp_path / "s", "train", pixels(6)[:, 0], Y.astype(np.uint8))


def in_celeba(tmp_path: Path) -> Path:
    return celeba(tmp_path / "s")


@pytest.mark.parametrize("make", [in_folders, in_split_folders, in_table, in_idx, in_celeba])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata.csv", TABLE),
        ("Meta.TSV", "image\tcase-number\n"),
        ("list.txt", "6\nimage SubjectID\nx 1\n"),
        ("a.csv", "\ufeff'a';\"Patient ID\"\n"),
        ("meta.json", json.dumps([{"file": "x", "donor": 1}])),
        ("patients.xlsx", "PK"),
        ("identity.txt", "000001.jpg 7\n"),
    ],
)
def test_a_table_of_people_beside_the_pictures(
    tmp_path: Path, make: Callable[[Path], Path], file: str, text: str
) -> None:
    root = make(tmp_path)
    (root / file).write_text(text)
    drafted = init(root).read_text()
    assert f'ignored = ["{file}"]' in drafted and "looks like people" in drafted
    say(root, "")
    with pytest.raises(DataError, match="looks like people") as e:
        load(root)
    assert f'ignored = ["{file}"]' in str(e.value) and " once you " in str(e.value) and "\n" not in str(e.value)
    say(root, f'ignored = ["{file}"]')
    assert found(root) == [] and units(root) is None


def test_a_column_in_a_table_beside_is_not_the_unit_yet(tmp_path: Path) -> None:
    root = in_folders(tmp_path)
    (root / "metadata.csv").write_text(TABLE)
    confirm(root, unit="one patient")
    say(root, 'unit_column = "patient_id"')
    with pytest.raises(
        DataError, match=r'is in "metadata.csv", which is not used; first list the images in labels\.csv'
    ):
        load(root)


def test_tables_in_split_folders_and_of_no_people_are_named(tmp_path: Path) -> None:
    root = in_split_folders(tmp_path)
    (root / "train" / "meta.csv").write_text(TABLE)
    (root / "sizes.parquet").write_bytes(b"PAR1")
    (root / "README.txt").write_text("One patient a row.\n")
    confirm(root)
    assert found(root)[0].startswith("train/meta.csv: ")
    assert ["sizes.parquet" in n and "nor looked into" in n for n in found(root, "note")] == [True]


def test_what_a_release_brings_along_is_no_table_of_people(tmp_path: Path) -> None:
    root = in_table(tmp_path)
    for name in ("receipt.json", "ledger.jsonl"):
        (root / name).write_text('{"unit": "one image"}')
    confirm(root)
    assert check(root) == []


def test_identities_can_be_left_aside_in_writing(tmp_path: Path) -> None:
    root = celeba(tmp_path / "s", people=[7, 8, 7, 9, 9, 9])
    assert 'unit_column = "identity_CelebA.txt"' in init(root).read_text()
    declared(root, unit='"one person"')
    assert units(root) == [0, 1, 0, 2, 2, 2]
    declared(root, unit='"one image"', max_images_per_unit="1", unit_column='""', ignored='["identity_CelebA.txt"]')
    assert found(root) == [] and units(root) is None
    (root / "list_bbox_celeba.txt").write_text("6\nimage_id x_1 y_1\n000001.jpg 1 2\n")
    assert any("list_bbox_celeba.txt" in n for n in found(root, "note"))


def test_prepare_keeps_what_says_whose_images_are_whose(tmp_path: Path) -> None:
    root = table(tmp_path)
    (root / "metadata.csv").write_text(TABLE)
    (root / "patients.xlsx").write_text("PK")
    (root / "pictures.zip").write_text("PK")
    out = prepare(root, tmp_path / "out")
    assert {"metadata.csv", "patients.xlsx"} < {p.name for p in out.iterdir()} and not (out / "pictures.zip").exists()
    assert (out / "labels.csv").read_text().splitlines()[1] == "img/000.png,cat,p1"
    text = declare.path_for(out).read_text()
    assert 'ignored = ["metadata.csv"]' in text and 'unit_column = "patient id"' in text.lower()


def test_foreign_names_stay_in_one_line_and_in_toml(tmp_path: Path) -> None:
    name = 'patient\n"#\x1b[31m\x7f'
    np.savez(tmp_path / "s.npz", x=pixels(6), y=Y, **{name: IDS})
    init(tmp_path / "s.npz")
    assert declare.read(tmp_path / "s.npz").choice == declare.Choice()
    line = found(tmp_path / "s.npz")[0]
    assert line.isprintable() and 'ignored = ["patient\\n' in line
    shown = line.partition("ignored = ")[2].partition(" to write")[0]
    say(tmp_path / "s.npz", f"ignored = {shown}")
    assert load(tmp_path / "s.npz").info.units == 10


def test_a_declaration_without_columns_reads_as_before(tmp_path: Path) -> None:
    root = in_folders(tmp_path)
    info = confirm(root)
    assert "unit_column" not in draft.text(info) and declare.read(root) == declare.Declaration(info)
    assert "unit_column" not in draft.draft(root, "s") and units(root) is None and found(root) == []


PEOPLE = """patient_id|PatientID|Patient ID|PATIENT|patients|patientid|PATIENTID|idpatient|id_patient|case|case-number|
CaseNo|caseno|Case No.|groups|group|subject_ids|subjectIDs|subj|study|StudyInstanceUID|study_key|participant|
individual|donorId|client_no|user|userId|writer_id|author|owner|family|families|mrn|pid|eye_id|eyeid|Exam ID|exam_no|
visit-number|lesion_id|identity|patient's id|Patient #|anon_patient_id|empi_anon_id|AccessionNumber|person|units|
patient_name|hospital_patient_id|number_of_patient|ＰatientID|Proband|subjectno|record_id|group_key|patient1|
患者ID|hashed patient"""
OTHERS = """age|sex|image_id|id|file|label|split|patient_age|Patient Gender|age_group|blood_group|case_type|study_date|
dx|dx_type|site|fold|View Position|Follow-up #|x|y|classes|eye|weights|Finding Labels|Male|user_agent|index|number|
uppercase|subtype|category|list_bbox_celeba|isic_id|path|name|hash|"""


def test_which_names_look_like_people() -> None:
    people, others = (text.replace("\n", "").split("|") for text in (PEOPLE, OTHERS))
    assert [n for n in people if not looks_like_people(n)] == []
    assert [n for n in others if looks_like_people(n)] == []


@pytest.mark.parametrize("source", ["", "some", "some-images-idx3-ubyte"])
def test_an_idx_file_of_people_beside_the_pair(tmp_path: Path, source: str) -> None:
    root = idx_pair(tmp_path / "s", "some", pixels(6)[:, 0], Y.astype(np.uint8))
    confirm(root / source)
    assert found(root / source) == []
    (root / "some-patients-idx1-ubyte").write_bytes(b"ids")
    (root / "other").write_bytes(b"")
    assert len(found(root / source)) == 1 and 'ignored = ["some-patients-idx1-ubyte"]' in found(root / source)[0]
    assert any("other" in n for n in found(root / source, "note")) == (not source)


def test_a_person_among_attributes_is_named(tmp_path: Path) -> None:
    root = celeba(tmp_path / "s", kind="csv")
    text = (root / "list_attr_celeba.csv").read_text().replace("Smiling", "person_id").replace(",-1,", ",2880,")
    (root / "list_attr_celeba.csv").write_text(text)
    with pytest.raises(DataError, match=r"'2880'; .*also \"\w+\"; a person belongs into identity_CelebA.txt"):
        init(root)
