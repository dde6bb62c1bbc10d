"""How plans, ledger lines and receipts read for people; made from their JSON, so nothing here can change a claim.

Names in them may be a stranger's, so no character reaches a terminal that could move its cursor or turn its text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

JOINERS = "\u200c\u200d"  # some scripts, and some pictures, need them; they move nothing
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of characters that act on a terminal, or break its line
LONGEST = 2000  # characters of one line that are shown


def legible(text: object, *, lines: bool = False) -> str:
    """Text that may be a stranger's, fit for a terminal: one line in which control characters are written out.

    Escapes of terminals, line ends, marks of direction and lone surrogates become \\uXXXX, as JSON writes them, so JSON
    stays JSON of the same value.

    Args:
        text: anything with words.
        lines: keep line ends: the text is ours, and only names in it are not.
    """
    kept = JOINERS + ("\n" if lines else "")
    return "".join(c if c in kept or unicodedata.category(c) not in UNSEEN else _written(c) for c in str(text))


def _written(c: str) -> str:
    raw = c.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{raw[i : i + 4]}" for i in range(0, len(raw), 4))


def one_line(text: object) -> str:
    """`legible`, and cut where it is longer than anybody reads."""
    short = legible(str(text)[: LONGEST + 1])
    return short if len(short) <= LONGEST else f"{short[:LONGEST]}... (cut)"


def plan_table(p: Mapping[str, Any]) -> str:
    """A priced plan: one row per release, then the total.

    Args:
        p: the keys of `veilset plan --json`.
    """
    head = f"{'release':<16}{'verb':<6}{'times':>7}{'rate':>9}{'noise':>10}{'share':>8}{'alone':>9}"
    lines = [head, "-" * len(head)]
    for r in p["releases"]:
        alone = "inf" if r["epsilon_alone"] is None else f"{r['epsilon_alone']:.4f}"
        name = one_line(r["name"]) + (" /class" if r["partition"] else "")
        lines.append(
            f"{name:<16}{r['verb']:<6}{r['steps']:>7}{r['sample_rate']:>9.4g}{r['noise_multiplier']:>10.4g}"
            f"{r['epsilon_share']:>8.2f}{alone:>9}"
        )
    total = "infinite" if p["epsilon"] is None else f"{p['epsilon']:.4f}"
    lines.append(f"epsilon {total} at delta {p['delta']:g}, unit: {one_line(p['unit'])}; no record has been read")
    if (p["classes"] or 1) > 1:
        lines.append(
            f"{p['classes']} declared classes: one without private images gets as many images as the others, of noise; "
            "`veilset data check` names it"
        )
    lines.append(f"about {p['seconds']:.0f} s and {p['memory_mb']:.0f} MB on two cores")
    lines += map(one_line, public_words(p))
    return "\n".join(lines + [one_line(f"warning: {w}") for w in p["warnings"]])


def ledger_words(b: Mapping[str, Any], how: str = "") -> str:
    """The body of a ledger line.

    Args:
        b: the body.
        how: a charge's mechanism and noise, as the mechanism words them.
    """
    if b["kind"] == "charge":
        part = "" if b["part"] is None else f" (class {b['part']})"
        return one_line(f"charge {b['release']}{part}: {b['steps']} x {how}, rate {b['sample_rate']:g}")
    return one_line(b["kind"] + (f": {b['purpose']}" if "purpose" in b else ""))


def receipt_lines(f: Mapping[str, Any]) -> str:
    """A receipt that has an epsilon."""
    lines = [
        f"epsilon   {f['epsilon']:.6g} at delta {f['delta']:g} ({f['accountant']}; RDP: {f['epsilon_rdp']:.4g})",
        f"relation  {f['relation']}; one unit is {f['unit']}, N = {f['data']['units']} declared",
        f"method    {f['method']} on {f['data']['name']}",
        f"ledger    {f['ledger_lines']} lines, head {f['ledger_head'][:16]}",
    ]
    if f.get("account"):
        lines.append(f"account   line {f['account']['line']}, head {f['account']['head'][:16]}")
    if f.get("stream"):
        s = f["stream"]
        whole = f"all of them: epsilon {s['epsilon']:.6g} at delta {s['delta']:g}"
        lines.append(f"stream    task {s['task']} of {s['tasks']}; {whole}; {s['composition']}")
    if f.get("selftest"):
        tested = f["selftest"]
        held = f"{tested['checks']} checks hold" if tested["ok"] else "FAILED: do not rely on this installation"
        lines.append(f"selftest  {held}, code {tested['code'][:16]}")
    lines += [f"public    {words}" for words in public_words(f)]
    return "\n".join(map(one_line, lines + ([f"stamp     {f['stamp']}"] if f["stamp"] else [])))


def public_words(f: Mapping[str, Any]) -> list[str]:
    """A sentence on each declared public set of a plan or receipt; none where there is none."""
    return [
        f"the claim rests on {p['name']} being public ({p['images']} images, licence {p['licence']}, SHA-256 "
        f"{p['sha256'][:16]}), as {p['declared_by']} declares; nothing here can check that"
        for p in f.get("public", [])
    ]


def account_table(a: Mapping[str, Any]) -> str:
    """A privacy account: what it is for, its charges, what is left.

    Args:
        a: the keys of `veilset account show --json`.
    """
    of = a["set"]
    lines = [
        f"account of {of['name']}: {of['units']} units declared, one unit is {of['unit']}, {of['relation']}",
        f"cap: epsilon {a['epsilon']:g} at delta {a['delta']:g} for everything drawn, however it was chosen",
    ]
    for i, body in enumerate(a["charges"], 1):
        how = f"search of {body['search']['trials']} trials" if "search" in body else _mechanisms(body["releases"])
        lines.append(f"{i:>4}  {body['head'][:12]}  {body['purpose']}: {how}")
    left = f"another Gaussian release of up to epsilon {a['epsilon_left']:.3g}" if a["epsilon_left"] else "nothing"
    spent = "all" if a["share_spent"] is None else f"{a['share_spent']:.1%}"
    lines.append(f"spent: {spent} of the cap; left: {left}")
    return "\n".join(
        [*map(one_line, lines), f"head {a['head']} (keep a copy elsewhere: it shows if the file is set back)"]
    )


def _mechanisms(releases: Sequence[Mapping[str, Any]]) -> str:
    """Planned releases in few words."""
    steps, noise = sum(r["steps"] for r in releases), min((r["noise_multiplier"] for r in releases), default=0)
    kinds = " and ".join(sorted({str(r.get("mechanism", "Gaussian")) for r in releases}) or ["Gaussian"])
    return f"{steps} {kinds} release(s), noise multiplier {noise:.4g}" + (" or more" if len(releases) > 1 else "")


def as_html(thing: object) -> str:
    """Its text for a notebook."""
    return f"<pre>{escape(str(thing))}</pre>"


def plus_minus(figure: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A mean with its standard deviation, as text."""
    if not figure:
        return ""
    return f"{figure['mean']:.{digits}f}" + (f" ± {figure['sd']:.{digits}f}" if figure["sd"] is not None else "")
