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

    verb("init", "draft a declaration for the owner to read and confirm", "source", "image folder, .npz or IDX files")
    verb("check", "find every file fault; speaks to the owner only", "source", "a declared set")
    p = verb("prepare", "convert images by declared rules only", "source", "image folder")
    p.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    p.add_argument("--size", metavar="HxW", help="for example 28x28")
    p.add_argument(
        "--fit", default="crop", choices=("crop", "pad"), help="how to reach the aspect ratio (default crop)"
    )
    p.add_argument("--grey", action="store_true", help="convert to grey")
    p.add_argument("--bits", type=int, help="bit depth of the input, 8 or 16; default 16 with --window, else 8")
    p.add_argument("--window", metavar="LOW,HIGH", help="values shown as black and white; required for 16-bit images")
    p = verb("fetch", "download a public benchmark set, by checksum", "name", "mnist or fashion-mnist")
    p.add_argument("--out", metavar="DIR", help="default: the user's cache")
    verb("clean", "remove a run's private by-products", "run", "run folder")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say

    if args.what == "init":
        from veilset.data.draft import init, questions

        path, found = init(args.source), questions(args.source)
        words = "\n".join([*map(str, found), f"drafted {path}: read it, correct it, and set confirmed = true"])
        say(args, {"declaration": str(path), "columns": _rows(found)}, words)
    elif args.what == "check":
        from veilset.data.check import check

        found = check(args.source)
        faults = [f for f in found if f.severity == "fault"]
        words = "\n".join([*(str(f) for f in found), f"{len(faults)} fault(s)" if faults else "no faults"])
        say(args, {"ok": not faults, "faults": _rows(found)}, words)
        return 1 if faults else 0
    elif args.what == "prepare":
        from veilset.data.prepare import prepare

        size, window = _pair(args.size, "x", "size", int), _pair(args.window, ",", "window", float)
        out = prepare(args.source, args.out, size=size, fit=args.fit, grey=args.grey, bits=args.bits, window=window)
        say(args, {"out": str(out)}, f"converted into {out}; now read and confirm {out}/veilset.toml")
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
