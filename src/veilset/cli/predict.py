"""Label images with the run of a teacher: name, class and probability of each, as CSV. Costs no privacy.

The claim covers the teacher, not what it says: labels follow from the images that you give, and are as private as
these.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a finished run folder of a teacher")
    parser.add_argument("--images", required=True, metavar="FOLDER|NPZ", help="pictures, or an .npz file with x")
    parser.add_argument("--out", required=True, metavar="CSV", help="file to make")


def run(args: argparse.Namespace) -> int:
    import csv
    import io

    import torch

    from veilset.cli.main import say
    from veilset.core.errors import RunError
    from veilset.core.io import write_bytes
    from veilset.data.unlabelled import read_unlabelled
    from veilset.methods.catalogue import open_teacher

    out = Path(args.out)
    if out.exists():
        raise RunError(f"{out} exists; choose another file")
    teacher = open_teacher(args.run)
    _, info = teacher.fitted()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image", "label", "probability"))
    counts = dict.fromkeys(info.classes, 0)
    for names, x in read_unlabelled(args.images, info):
        likely, labels = teacher.predict_proba(torch.from_numpy(x)).max(1)
        for name, label, p in zip(names, labels.tolist(), likely.tolist(), strict=True):
            table.writerow((name, info.classes[label], f"{p:.4f}"))
            counts[info.classes[label]] += 1
    write_bytes(out, text.getvalue().encode())
    n = sum(counts.values())
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    say(args, {"out": args.out, "n": n, "labels": counts}, f"{n} images: {said}\nwritten to {args.out}")
    return 0
