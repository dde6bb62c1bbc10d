"""Declare, check, convert, fetch or clean image sets."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veilset.data.faults import Fault


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, words: str, arg: str, about: str) -> argparse.ArgumentParser:
        p = verbs.add_parser(name, help=words, description=words, allow_abbrev=False)
        p.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
        p.add_argument(arg, metavar=arg.upper(), help=about)
        return p

    p = verb("init", "draft a declaration for the owner to read and confirm", "source", "a set; see docs/data.md")
    p.add_argument("--declaration", metavar="FILE", help="where to write it, if not beside the set: FILE.toml")
    _reading_arguments(p)
    p.add_argument("--window", metavar="LOW,HIGH", help="values shown as black and white, for deep values")
    p = verb("check", "find every file fault; speaks to the owner only", "source", "a declared set, or its declaration")
    p.add_argument("--declaration", metavar="FILE", help="the declaration, if it does not lie beside the set")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; they find the same (default 1)")
    p.add_argument("--public", metavar="SET", help="a public set: say whether private images are in it")
    p = verb("prepare", "convert images by declared rules only", "source", "a set; see docs/data.md")
    p.add_argument("--declaration", metavar="FILE", help="the declaration, if it does not lie beside the set")
    _reading_arguments(p)
    p.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    p.add_argument("--size", metavar="HxW", help="for example 28x28")
    p.add_argument(
        "--fit", default="crop", choices=("crop", "pad"), help="how to reach the aspect ratio (default crop)"
    )
    p.add_argument("--grey", action="store_true", help="convert to grey")
    p.add_argument("--bits", type=int, help="bit depth of the input, 8 or 16; default 16 with --window, else 8")
    p.add_argument("--window", metavar="LOW,HIGH", help="values shown as black and white; required for 16-bit images")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; the result is the same (default 1)")
    p = verb("fetch", "download a public benchmark set, by checksum", "name", "mnist or fashion-mnist")
    p.add_argument("--out", metavar="DIR", help="default: the user's cache")
    verb("clean", "remove a run's private by-products", "run", "run folder")


def _reading_arguments(p: argparse.ArgumentParser) -> None:
    """How files are read: one option for each field of `Reading` that a user gives."""
    p.add_argument("--label-from", metavar="NAME", help="the column, tag, array or key that is the label")
    p.add_argument("--labels", metavar="FILE", help="a table of labels, by path from the set")
    p.add_argument("--label-offset", type=int, metavar="N", help="what is taken from labels that are numbers")
    p.add_argument("--transpose", action="store_const", const=True, help="exchange rows and columns of each image")
    p.add_argument("--axis", type=int, choices=(0, 1, 2), help="the axis along which volumes are cut (default 2)")
    p.add_argument("--most-bytes", type=int, metavar="N", help="what an archive may unpack to")


def _reading(args: argparse.Namespace, window: Any = None) -> Any:
    """The options about reading files that were given, or None."""
    from veilset.data.reading import Reading

    names = ("label_from", "labels", "label_offset", "transpose", "axis", "most_bytes")
    given = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    given |= {"window": window} if window else {}
    return Reading(**given) if given else None


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say

    if args.what == "init":
        from veilset.data.draft import drafted, questions

        new = drafted(args.source, _reading(args, _pair(args.window, ",", "window", float)), args.declaration)
        found = questions(args.declaration or args.source)
        fit = [f"to make it fit: {new.fit}"] if new.fit else []
        last = f"drafted {new.path}: read it, correct it, and set confirmed = true"
        facts = {"declaration": str(new.path), "found": new.found, "prepare": new.fit.strip("`")}
        say(args, facts | {"columns": _rows(found)}, "\n".join([f"found {new.found}", *map(str, found), *fit, last]))
    elif args.what == "check":
        from veilset.data.check import check

        found = check(args.declaration or args.source, args.public, args.jobs)
        faults = [f for f in found if f.severity == "fault"]
        words = "\n".join([*(str(f) for f in found), f"{len(faults)} fault(s)" if faults else "no faults"])
        say(args, {"ok": not faults, "faults": _rows(found)}, words)
        return 1 if faults else 0
    elif args.what == "prepare":
        from veilset.data.prepare import prepared, rules_of

        size, window = _pair(args.size, "x", "size", int), _pair(args.window, ",", "window", float)
        rules = rules_of(size, args.fit, args.grey, args.bits, window)
        made = prepared(args.declaration or args.source, args.out, rules, _reading(args), args.jobs)
        last = f"converted into {made.path}; now read and confirm {made.path}/veilset.toml"
        say(args, {"out": str(made.path), "found": made.found, "done": made.done}, f"{made}\n{last}")
    elif args.what == "fetch":
        from veilset.data.fetch import fetch

        path = fetch(args.name, args.out)
        say(args, {"folder": str(path)}, f"{args.name} is in {path}")
    else:
        from veilset.data.clean import clean

        gone = clean(args.run)
        say(args, {"removed": gone}, "removed private/" if gone else "nothing to remove")
    return 0


def _rows(found: list[Fault]) -> list[dict[str, str]]:
    return [{"severity": f.severity, "text": str(f)} for f in found]


def _pair(text: str | None, sep: str, name: str, kind: type) -> Any:
    from veilset.core.errors import ConfigError

    if text is None:
        return None
    try:
        a, b = (kind(v) for v in text.split(sep))
    except ValueError:
        raise ConfigError(f"{name} = {text!r}: must be two numbers with {sep!r} between") from None
    return a, b
