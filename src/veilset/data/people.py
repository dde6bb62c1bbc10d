"""Which names of columns, arrays and files look like people, so that nobody overlooks whose images belong together."""

from __future__ import annotations

import re
import unicodedata

# Whose images belong together. Too many words are the safe side: one line of the declaration says that a name is not.
WHO = """
    patient patienten pat pt paciente paziente proband probe subject subj sub person personen people persona
    personne case lesion group grp unit study participant individual donor client customer consumer user username
    writer author owner family household mrn mrnumber medicalrecord pid sid ptid empi mpi eid rid ssn nhs identity
    individu volunteer respondent student pupil employee worker member speaker singer actor player celebrity artist
    driver citizen resident inmate passenger human baby infant child mother father parent sibling twin couple animal
    specimen cohort sujet surname lastname fullname email пациент 患者 病人
"""
# These only beside a number or key: `eye` alone is left or right, `eye_id` is somebody's eye.
PART = """
    eye exam examination visit encounter episode admission accession scan series session slide biopsy tissue sample
    record chart face hand finger voice body head knee breast tooth nodule tumor tumour mass wound mole stay
    hospital
"""
NUMBER = "id ids idx no nr num nbr number numbers key keys code uid uuid guid identifier index hash ref"
# What says nothing: `anon_patient_name` is `patient`.
FILLER = """
    s the of my our by per a anon anonymous anonymized anonymised pseudo pseudonym deid orig original source src new
    old dicom med medical clinical name names label labels list folder dir file files table map info data metadata
    meta unique hashed encrypted masked train test val valid validation txt csv celeb
"""
PLAIN = {
    w: kind for kind, text in (("who", WHO), ("part", PART), ("number", NUMBER), ("", FILLER)) for w in text.split()
}
_ENDS = "|".join(sorted(NUMBER.split(), key=len, reverse=True))
_GLUED = re.compile(rf"({_ENDS}|)({'|'.join(sorted((WHO + PART).split(), key=len, reverse=True))})({_ENDS}|)")


def looks_like_people(name: str) -> bool:
    """Whether a name looks like the id of a person, or of another thing that can have several images.

    `patient_id`, `PatientID`, `Case number`, `subject`, `groups`, `eye id` and `study uid` do; `age`, `patient_age`,
    `age_group`, `image_id` and `id` do not.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).casefold().replace("#", " no ")
    kinds = [k for word in re.findall(r"[^\W\d_]+", text) for k in _kinds(word)]
    who, number = kinds.count("who"), kinds.count("number")
    only = all(k in ("who", "number", "") for k in kinds)
    return bool(who and (only or number)) or bool(number and "part" in kinds)


def _kinds(word: str) -> tuple[str, ...]:
    """What the parts of one word are: `patients` and `patientid` are split; "other" for a word that is not known."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word)):
        if form in PLAIN:
            return (PLAIN[form],)
    for form in (word, word.removesuffix("s")):
        if glued := _GLUED.fullmatch(form):
            return tuple(PLAIN[part] for part in glued.groups() if part)
        if glued := _GLUED.fullmatch(re.sub(f"s(?=({_ENDS})$)", "", form)):
            return tuple(PLAIN[part] for part in glued.groups() if part)
    return ("other",)
