"""The report: its verdict is recomputed, its numbers are the accountant's, and no stranger writes markup."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from veilset.core.errors import ConfigError, ModeError, RunError
from veilset.core.io import sha256_file
from veilset.core.signing import new_key, sign
from veilset.core.types import Images, PublicInfo
from veilset.methods import catalogue
from veilset.methods.base import Synthesizer
from veilset.privacy.known_faults import known_fault
from veilset.privacy.ledger import Ledger
from veilset.privacy.mechanisms import of
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import from_arrays
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy
from veilset.report import samples
from veilset.report.evidence import UNCOVERED, attack, circumstances, examine, percent, releases, short, up
from veilset.report.page import write_report

torch.set_num_threads(1)
CLASSES = ("zero", '<script>alert("x")</script>', "two\u202e\" onload='y")
EPSILON = 1.0


class ClassMean(Synthesizer):
    """Two Gaussian releases; enough to fill a ledger."""

    name = "class-mean"

    def _plan(self, info, privacy):
        return Plan((Release(name="mean", bound=4.0), Release(name="count", weight=3.0)))

    def _fit(self, gate, info, plan):
        mean = gate.sum("mean", lambda x, y: x, by_class=True)
        gate.sum("count", lambda x, y: torch.ones(1), by_class=True)
        return {"mean": (mean / info.units * len(info.classes)).float()}

    def _sample(self, state, info, labels):
        return state["mean"][labels]


class Looped(ClassMean):
    """A loop, so that the ledger is long."""

    name = "looped"

    def _plan(self, info, privacy):
        return Plan((Release(name="train", verb="grad", steps=14),))

    def _fit(self, gate, info, plan):
        for _ in range(14):
            grad = gate.grad("train", lambda p, x, y: (p["w"] * x).sum(), {"w": torch.zeros(info.shape)})["w"]
        return {"mean": grad.expand(len(info.classes), *info.shape).contiguous()}


def info(**changed):
    facts = {"name": "ward & <i>clinic</i>", "classes": CLASSES, "shape": (1, 4, 4), "units": 90}
    return PublicInfo(**(facts | changed))


def private(**changed):
    rng = np.random.default_rng(0)
    facts = info(**changed)
    x = rng.integers(0, 256, (90, *facts.shape), dtype=np.uint8)
    return from_arrays(facts, x, np.arange(90, dtype=np.uint8) % 3)


def fitted(cls=ClassMean, *, epsilon=EPSILON, seed=None, **changed):
    return cls().fit(private(**changed), Privacy(epsilon), seed=seed)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A release folder and the model it came from."""
    folder = tmp_path_factory.mktemp("released") / "release"
    model = fitted()
    model.write_samples(model.sample(60, seed=1), folder)
    return folder, model


@pytest.fixture(scope="module")
def page(released):
    return write_report(released[0], scores=scores(released[0])).read_text("utf-8")


def scores(folder=None, **changed):
    """Figures, of this release if one is named."""
    row = {"name": "gen2real-cnn-per-class", "value": 71.25, "spread": 0.5, "unit": "%", "better": "higher"}
    row |= {"reads_private": False, "seeds": 3}
    row["detail"] = {
        "by_class": [{"class": c, "value": v, "spread": None} for c, v in zip(CLASSES, (90, None, 50), strict=True)]
    }
    named = {"files_sha256": sha256_file(folder / "SHA256SUMS")} if folder else {}
    return {"metrics": [row | changed]} | named


def verdict(html):
    return re.search(r'<div class="verdict (\w+)".*?<strong>(.*?)</strong>', html, re.S).groups()


def test_lies_beside_the_folder_which_still_verifies(released, page):
    folder, _ = released
    assert folder.with_name("release-report.html").read_text("utf-8") == page
    assert verify(folder).ok
    assert verdict(page) == ("good", "VERIFIED")


def test_loads_nothing_and_names_no_place(released, page):
    # The only addresses are data: URIs and links inside the page; no scheme, no protocol-relative address, no script.
    assert "://" not in page and "url(" not in page and "@import" not in page and "<script" not in page
    targets = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]*)""", page)
    assert targets and all(t.startswith(("data:", "#")) for t in targets)
    assert str(released[0].parent) not in page


def test_says_the_recomputed_epsilon_and_the_analytic_attack(released, page):
    folder, model = released
    assert f"<dt>epsilon</dt><dd>{up(verify(folder).epsilon)}<" in page
    plan = model.plan(info(), Privacy(EPSILON))
    mu = math.sqrt(sum(1 / r.noise_multiplier**2 for r in plan.releases))
    for fpr in (0.001, 0.01, 0.1):
        tpr = norm.cdf(norm.ppf(fpr) + mu)
        assert f"<b>{percent(tpr)}</b>" in page
    assert f"<dd>{percent(norm.cdf(norm.ppf(0.01) + mu))}<small>of members" in page


def test_escapes_what_strangers_wrote(page):
    for raw in (*CLASSES[1:], "<i>clinic</i>"):
        assert raw not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page
    assert "ward &amp; &lt;i&gt;clinic" in page


def test_shows_releases_measures_and_how_to_check(released, page):
    _, model = released
    for share, _ in model.plan(info(), Privacy(EPSILON)).shares():
        assert f"{100 * share:.1f}\u202f%" in page.replace("&#8239;", "\u202f")
    assert "71.25 ± 0.50 %" in page and "90.0&#8239;%" in page and "no images" in page
    assert "reads private records" not in page and "not read" in page
    assert "veilset verify FOLDER" in page and "sha256sum -c SHA256SUMS" in page
    assert model.receipt_.ledger_head in page and model.receipt_.versions["torch"] in page


def test_a_release_shows_no_exact_figure_of_private_records(released, tmp_path):
    html = write_report(released[0], tmp_path / "p.html", scores=scores(released[0], reads_private=True)).read_text(
        "utf-8"
    )
    assert "71.25" not in html and "Not shown, since they were computed from private records" in html


def test_research_shows_figures_of_private_records_and_marks_them(tmp_path):
    model = fitted(seed=3)
    folder = model.write_samples(model.sample(6), tmp_path / "r", "npz")
    html = write_report(folder, scores=scores(folder, reads_private=True)).read_text("utf-8")
    assert '<span class="badge bad">reads private records</span>' in html and "71.25" in html
    assert "this page itself must not be handed on" in html


def test_shows_the_first_images_of_each_class(released):
    rows = samples.collect(released[0], info(), None).rows
    assert [name for name, _ in rows] == list(CLASSES)
    assert [len(pictures) for _, pictures in rows] == [10, 10, 10]


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_reads_every_format(released, tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    folder, model = released
    other = model.write_samples(model.sample(60, seed=1), tmp_path / form, form)
    assert samples.collect(other, info(), None).rows == samples.collect(folder, info(), None).rows


def test_colour_and_large_images_are_shown_small(tmp_path):
    facts = info(shape=(3, 200, 150))
    images = Images(torch.zeros(3, 3, 200, 150, dtype=torch.uint8), torch.arange(3), CLASSES)
    images.save(tmp_path / "big")
    shown = samples.collect(tmp_path / "big", facts, None)
    assert len(shown.rows) == 3 and not shown.crisp and len(shown.rows[0][1][0]) < 1000
    assert samples.Samples([], "", (1, 28, 28)).cell == 56


def test_labels_cannot_point_outside_the_folder(released, tmp_path):
    folder = shutil.copytree(released[0], tmp_path / "r")
    shutil.copy(next(folder.glob("images/*/000000.png")), tmp_path / "secret.png")
    (folder / "labels.csv").write_text("file,label,class\n../secret.png,0,zero\n")
    shown = samples.collect(folder, info(), None)
    assert not shown.rows and "not the plain name of a PNG file inside the folder" in shown.origin


def test_draws_from_a_run(tmp_path, monkeypatch):
    monkeypatch.setitem(catalogue.BUILT_IN, "class-mean", catalogue.Entry(__name__, "ClassMean", ""))
    html = write_report(fitted().save(tmp_path / "run")).read_text("utf-8")
    assert html.count("data:image/png") == 30 and "drawn from the model" in html


def test_a_run_of_an_absent_method_still_has_a_page(tmp_path):
    html = write_report(fitted().save(tmp_path / "run")).read_text("utf-8")
    assert verdict(html) == ("good", "VERIFIED")
    assert "None to show" in html and "is unknown" in html


def test_research_is_stamped(tmp_path):
    model = fitted(seed=3)
    folder = model.write_samples(model.sample(6), tmp_path / "r", "npz")
    html = write_report(folder).read_text("utf-8")
    assert verdict(html) == ("warn", "RECOMPUTES, BUT NOT A RELEASE")
    assert '<span class="badge warn">NOT A RELEASE</span>' in html and "What is promised<" not in html


def test_non_private_is_stamped_and_claims_nothing(tmp_path):
    model = fitted(epsilon=math.inf, seed=3)
    folder = model.write_samples(model.sample(6), tmp_path / "r", "npz")
    html = write_report(folder).read_text("utf-8")
    assert verdict(html) == ("bad", "NON-PRIVATE")
    assert '<span class="badge bad">NON-PRIVATE</span>' in html
    assert "<dt>epsilon</dt>" not in html and "promised" not in html


def test_who_paid_and_whether_the_installation_was_tested_are_told(page):
    assert "privacy account" in page and "none was given" in page
    tested = {"ok": True, "checks": 74, "code": "ab"}
    told = dict(circumstances({"account": {"line": 3, "head": "0123456789abcdef99"}, "selftest": tested}))
    assert told == {"privacy account": "line 3, head 0123456789abcdef", "self-test before": "74 checks held"}
    assert "FAILED" in dict(circumstances({"selftest": tested | {"ok": False}}))["self-test before"]
    for strange in ({}, {"selftest": 7, "account": "x"}, {"account": [], "selftest": None}):
        assert [words for _, words in circumstances(strange)] == ["none was given", "not run on this installation"]


def test_large_delta_is_told(tmp_path):
    model = ClassMean().fit(private(), Privacy(1.0, 0.1, allow_large_delta=True))
    assert "delta is not below 1/N" in write_report(model.save(tmp_path / "run")).read_text("utf-8")


def test_long_ledgers_are_shortened(tmp_path):
    model = fitted(Looped)
    html = write_report(model.save(tmp_path / "run")).read_text("utf-8")
    assert verdict(html) == ("good", "VERIFIED")
    assert "4 more lines are in ledger.jsonl" in html and model.receipt_.ledger_head in html


def test_sampled_releases_have_a_curve_that_never_crosses_guessing():
    ledger = Ledger()
    facts = Plan((Release(name="train", verb="grad", sample_rate=0.2, steps=4, noise_multiplier=1.5),))
    planned = Release(name="train", sample_rate=0.2, noise_multiplier=1.5)
    ledger.append("charge", **of(planned).body(planned, None, 4))
    found = attack(ledger)
    assert all(t >= f for f, t in found["curve"]) and found["curve"] == sorted(found["curve"])
    assert found["strength"] == "strong"
    (row,) = releases(replace(facts, info=info(), privacy=Privacy(1.0)))
    assert (row["rate"], row["times"], row["share"], row["verb"]) == ("20\u202f%", "4", 1.0, "noisy gradient")


def _flip(path):
    path.write_bytes(path.read_bytes() + b" ")


def _edit(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


TAMPERED = {
    "an image": lambda f: _flip(next(f.glob("images/*/000000.png"))),
    "an added file": lambda f: (f / "extra.txt").write_text("x"),
    "epsilon": lambda f: _edit(f / "receipt.json", epsilon=0.1),
    "a stamp by hand": lambda f: _edit(
        f / "receipt.json", stamp="NON-PRIVATE: epsilon is infinite, no noise was added"
    ),
    "types": lambda f: _edit(f / "receipt.json", data=[1], method={"a": 1}, versions=5, config=None),
    "surrogates": lambda f: _edit(f / "receipt.json", method="\ud800"),
    "the ledger": lambda f: (f / "ledger.jsonl").write_text("{}\n"),
    "no ledger": lambda f: (f / "ledger.jsonl").unlink(),
    "no receipt": lambda f: (f / "receipt.json").unlink(),
    "no JSON": lambda f: (f / "receipt.json").write_text("[1, 2"),
    "a list": lambda f: (f / "receipt.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_shows_in_red_and_nothing_else_is_claimed(released, tmp_path, what):
    folder = shutil.copytree(released[0], tmp_path / "r")
    TAMPERED[what](folder)
    html = write_report(folder, scores=scores(released[0])).read_text("utf-8")
    assert verdict(html) == ("bad", "NOT VERIFIED") and "failed</span>" in html
    assert "data:image/png" not in html and "promised" not in html and "71.25" not in html
    assert str(tmp_path) not in html


def test_a_signature_is_named(released, tmp_path):
    folder = shutil.copytree(released[0], tmp_path / "r")
    fingerprint = new_key(tmp_path / "key")
    sign(folder / "receipt.json", tmp_path / "key", folder / "receipt.sig.json")
    html = write_report(folder).read_text("utf-8")
    assert verdict(html) == ("good", "VERIFIED") and f'Signed with the key <span class="hash">{fingerprint}<' in html


def test_metrics_in_the_folder_are_read(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "metrics.json").write_text(json.dumps(scores()))
    fitted().write(tmp_path / "r")
    html = write_report(tmp_path / "r").read_text("utf-8")
    assert "71.25 ± 0.50 %" in html and UNCOVERED not in html.lower()


@pytest.mark.parametrize("named", ["", "0" * 64, 7])
def test_figures_of_another_release_are_not_shown(released, tmp_path, named):
    other = scores() | ({"files_sha256": named} if named else {})
    html = write_report(released[0], tmp_path / "p.html", scores=other).read_text("utf-8")
    assert "71.25" not in html and "scores does not name the list of files of this release" in html
    assert "Measure again with veilset evaluate" in html


def test_figures_that_no_receipt_covers_say_so(page):
    assert page.index(f"<h3>{UNCOVERED.capitalize()}</h3>") < page.index("71.25")


def test_figures_in_private_of_a_release_are_a_fault(released, tmp_path):
    folder = shutil.copytree(released[0], tmp_path / "r")
    (folder / "private").mkdir()
    (folder / "private" / "metrics.json").write_text(json.dumps(scores(folder)))
    html = write_report(folder).read_text("utf-8")
    assert verdict(html) == ("bad", "NOT VERIFIED") and "71.25" not in html and "private/ lies in a release" in html


def test_a_known_fault_shows_in_red_and_nothing_is_claimed(released, tmp_path):
    folder = shutil.copytree(released[0], tmp_path / "r")
    start = json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])["body"]["plan"]
    start["releases"][0]["verb"] = "grad"
    facts = json.loads((folder / "receipt.json").read_text())
    assert known_fault(facts, start) == ""
    for name, words in (("dp-gan", "KNOWN TO BE TOO SMALL"), ("a-plug-in", "NOT KNOWN TO HOLD")):
        found = examine(folder)
        facts |= {"method": name, "versions": {"veilset": "0.1.0"}}
        found.result.known_fault = known_fault(facts, start)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("veilset.report.evidence.verify", lambda folder, found=found: found.result)
            html = write_report(folder).read_text("utf-8")
        assert verdict(html) == ("bad", words) and "promised" not in html and "data:image/png" not in html
        assert "VERIFIED" not in html.replace("NOT VERIFIED", "")


def test_refuses_wrong_places(released, tmp_path):
    folder, _ = released
    for out in (folder / "report.html", folder / "images" / "r.html"):
        with pytest.raises(RunError, match="inside the folder"):
            write_report(folder, out)
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(RunError, match="not a veilset report"):
        write_report(folder, mine)
    assert mine.read_text() == "<p>mine</p>"
    with pytest.raises(RunError, match="is a folder"):
        write_report(folder, tmp_path)
    with pytest.raises(RunError, match="make it first"):
        write_report(folder, tmp_path / "absent" / "r.html")
    with pytest.raises(RunError, match="no such folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(RunError, match="neither receipt nor ledger"):
        write_report(tmp_path)
    assert write_report(folder, tmp_path / "new.html") == write_report(folder, tmp_path / "new.html")


def test_refuses_private_images_and_foreign_scores(released, tmp_path):
    folder, _ = released
    raw = Images(
        torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), CLASSES, reads_private=True
    )
    with pytest.raises(ModeError, match="private records"):
        write_report(folder, tmp_path / "p.html", images=raw)
    for bad in ({}, {"metrics": [{"name": "x"}]}, {"metrics": 3}, scores(value="high")):
        with pytest.raises(ConfigError, match="not scores"):
            write_report(folder, tmp_path / "p.html", scores=bad)
    assert not (tmp_path / "p.html").exists()


def test_numbers_never_understate_a_bound():
    assert [up(x) for x in (0.9999999999998951, 0.1, 3.99973001, 12345.6, 1e-7, 0.0)] == [
        "1",
        "0.1",
        "4",
        "12350",
        "0.0000001",
        "0",
    ]
    assert up(math.inf) == "infinite" and percent(0.01) == "1\u202f%" and percent(0.019766) == "1.98\u202f%"
    assert [short(x) for x in (1e-5, 1e-12, 0.01, 0.5)] == ["1e-5", "1e-12", "0.01", "0.5"]
