"""Measure a synthetic set against real images, over several seeds. What reads private records says so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="RUN|DIR", nargs="?", help="a run (images are drawn anew for each seed) or a sampled folder"
    )
    parser.add_argument("--against", metavar="D", help="the real set: its public test split is used")
    parser.add_argument(
        "--reference", metavar="REF", help="instead: a private reference, see `veilset reference`; free"
    )
    parser.add_argument("-n", type=int, default=60_000, help="images to draw from a run for each seed (default 60000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--metrics", metavar="A,B", help="comma-separated names or groups; default the group default")
    parser.add_argument("--list", action="store_true", help="list all metrics and end")
    parser.add_argument(
        "--research",
        action="store_true",
        help="read private records exactly: a private test split, and the training split to look for copies of it in "
        "the test split; the figures are stamped",
    )
    parser.add_argument("--protocol", metavar="P", help="train every network by this protocol, not by its own")
    parser.add_argument("--inception-weights", metavar="FILE", type=Path, help="for fid, kid and is-inception")
    parser.add_argument("--inception-sha256", metavar="HEX", help="hash of that file, if it is not the standard one")
    parser.add_argument("--domain-network", default="cnn", metavar="N", help="cnn (default), lenet or vgg11")
    parser.add_argument("--out", metavar="FILE", help="write the figures as JSON")
    choice = parser.add_argument_group("choosing one classifier (default: none is chosen, all are reported)")
    choice.add_argument("--select", metavar="RULE", help="synthetic (a held-out tenth), or private (paid once)")
    choice.add_argument("--candidates", default="logreg,mlp,cnn", metavar="A,B", help="default logreg,mlp,cnn")
    choice.add_argument("--select-epsilon", type=float, metavar="E", help="price of a private choice")
    choice.add_argument("--select-delta", type=float, default=1e-5, metavar="D", help="default 1e-5")
    choice.add_argument("--account", metavar="FILE", help="the set's privacy account, which pays for a private choice")
    choice.add_argument("--select-out", type=Path, metavar="DIR", help="new folder for its ledger and receipt")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import tell
    from veilset.core.errors import ConfigError, RunError
    from veilset.evaluation.evaluate import evaluate
    from veilset.evaluation.protocols import protocol_named
    from veilset.privacy.receipt import list_hash

    if args.list:
        return _list(args)
    if args.folder and args.reference:
        return _compare(args)
    if not args.folder or not args.against:
        raise ConfigError(
            "evaluate needs a run or folder, and --against D (or --reference REF); "
            "`veilset evaluate --list` names the metrics"
        )
    folder = Path(args.folder)
    if args.out and Path(args.out).exists():
        raise RunError(f"{args.out} exists; choose another file")
    names = args.metrics.split(",") if args.metrics else None
    test, members = _real(args.against, args.research)
    images, digest = _images(folder, args.n), list_hash(folder)
    scores = evaluate(
        images,
        test,
        seeds=args.seeds,
        metrics=names,
        protocol=protocol_named(args.protocol) if args.protocol else None,
        tools=_tools(args),
        select=_selection(args),
        members=members,
        progress=None if args.json else tell,
    )
    _keep(args, scores, digest, "metrics.json")
    return 0


def _keep(args: argparse.Namespace, scores: Any, digest: str, name: str) -> None:
    """Print the figures, and write them where asked and into a run, whose report shows the last ones.

    They name the hash of the release's list of files, so that no report takes them for another release's.
    """
    from veilset.cli.main import say
    from veilset.core.io import private_part, write_json

    facts = scores.to_json() | {"files_sha256": digest}
    if args.out:
        write_json(Path(args.out), facts)
    home = private_part(Path(args.folder))
    if home:
        write_json(home / name, facts, mode=0o600)
    say(args, facts, str(scores))


def _compare(args: argparse.Namespace) -> int:
    """Figures against a private reference: free, and fit for a release."""
    from veilset.cli.main import tell
    from veilset.core.errors import ConfigError, RunError
    from veilset.evaluation.against_reference import compare
    from veilset.evaluation.reference import open_reference
    from veilset.privacy.receipt import list_hash

    if args.against or args.metrics or args.select or args.research:
        raise ConfigError("--reference has figures of its own: leave out --against, --metrics, --select and --research")
    if args.out and Path(args.out).exists():
        raise RunError(f"{args.out} exists; choose another file")
    images, digest = _images(Path(args.folder), args.n), list_hash(args.folder)
    scores = compare(
        images,
        open_reference(args.reference),
        seeds=args.seeds,
        progress=None if args.json else tell,
    )
    _keep(args, scores, digest, "reference-metrics.json")
    return 0


def _list(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.evaluation.registry import entries

    rows = [
        {
            "name": e.name,
            "group": e.group,
            "default": e.default,
            "unit": e.unit,
            "better": e.better,
            "reads_real_images": e.uses_against,
            "doc": e.doc,
        }
        for e in entries().values()
    ]
    lines = [f"{'*' if r['default'] else ' '} {r['name']:28} {r['unit']:13} {r['better']:7} {r['doc']}" for r in rows]
    groups = ", ".join(dict.fromkeys(str(r["group"]) for r in rows))
    say(args, {"metrics": rows}, "\n".join([*lines, f"* default; groups: default, {groups}"]))
    return 0


def _tools(args: argparse.Namespace) -> Any:
    from veilset.core.errors import ConfigError
    from veilset.evaluation.extractors import Tools

    if args.inception_sha256 and not args.inception_weights:
        raise ConfigError("--inception-sha256 is the hash of a file: give it by --inception-weights FILE")
    return Tools(args.inception_weights, args.inception_sha256, domain_network=args.domain_network)


def _selection(args: argparse.Namespace) -> Any:
    """What --select asks for, or None. A private choice reads the training split of --against."""
    from veilset.core.errors import ConfigError, RunError
    from veilset.data.load import load
    from veilset.evaluation.selection import Selection
    from veilset.privacy.account import Account
    from veilset.privacy.spec import Privacy

    paid = {"select-epsilon": args.select_epsilon, "select-out": args.select_out}
    if args.select != "private":
        for name, value in {**paid, "account": args.account}.items():
            if value is not None:
                raise ConfigError(f"--{name} is for --select private; leave it out")
        return Selection(args.select, tuple(args.candidates.split(","))) if args.select else None
    for name, value in paid.items():
        if value is None:
            raise ConfigError(f"--select private needs --{name}: what the choice may cost, and where its receipt goes")
    if args.select_out.exists():
        raise RunError(f"{args.select_out} exists; choose another folder")
    return Selection(
        "private",
        tuple(args.candidates.split(",")),
        load(args.against).train,
        Privacy(args.select_epsilon, args.select_delta),
        args.select_out,
        account=Account(Path(args.account)) if args.account else None,
    )


def _images(folder: Path, n: int) -> Any:
    """A sampler for a run; the images themselves for a sampled folder."""
    from veilset.methods.catalogue import open_model
    from veilset.releases import open_release

    if (folder / "model.json").exists():
        model = open_model(folder)
        return lambda seed: model.sample(n, seed=seed)
    return open_release(folder).images


def _real(source: str, research: bool) -> tuple[Any, Any]:
    """(the test split, the training split or None): both read exactly under --research only."""
    from veilset.core.errors import ModeError
    from veilset.data.load import load
    from veilset.evaluation.inspected import inspected
    from veilset.privacy.private import PrivateImages

    bundle = load(source)
    test = bundle.test
    if test is None:
        raise ModeError(f"{source} has no test split; add one (a `test` folder or a split column) or use another set")
    if isinstance(test, PrivateImages) and not research:
        raise ModeError(
            f"the test split of {source} is private, so no exact measure of it may be released; "
            "buy figures with noise (`veilset reference`), declare it public if it is, or pass --research to get "
            "figures stamped private"
        )
    if isinstance(test, PrivateImages):
        test = inspected(test, "evaluate")
    return test, inspected(bundle.train, "evaluate") if research else None
