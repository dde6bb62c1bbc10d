"""The pages in a real browser: silent, offline, readable on a phone, by keyboard, by screen reader, in any colours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
import torch

from veilset.core.io import sha256_file
from veilset.core.types import PublicInfo
from veilset.methods.base import Synthesizer
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import from_arrays
from veilset.privacy.spec import Privacy
from veilset.report.page import write_comparison, write_report

torch.set_num_threads(1)
BINARY = browser.find()
pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no Chromium found; install one, or set VEILSET_CHROMIUM, to check the pages in a browser"
)
CLASSES = ("benign", "melanoma_in_situ_superficial_spreading_of_the_upper_extremity", '<b onload="x">"quoted"</b>')
KINDS = ("release", "audited", "non-private", "failed", "comparison")


class ClassMean(Synthesizer):
    """Two Gaussian releases."""

    name = "class-mean"

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return Plan((Release(name="mean", bound=4.0), Release(name="count", weight=3.0)))

    def _fit(self, gate: Any, info: PublicInfo, plan: Plan) -> dict[str, torch.Tensor]:
        mean = gate.sum("mean", lambda x, y: x, by_class=True)
        gate.sum("count", lambda x, y: torch.ones(1), by_class=True)
        return {"mean": (mean / info.units * len(info.classes)).float()}

    def _sample(self, state: dict[str, torch.Tensor], info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return state["mean"][labels]


def make(folder: Path, epsilon: float, seed: int | None = None, *, run: bool = False) -> Path:
    info = PublicInfo(name="ward <i>7</i>", classes=CLASSES, shape=(1, 8, 8), units=90, unit="one patient")
    x = torch.randint(0, 256, (90, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = from_arrays(info, x.numpy(), (torch.arange(90) % 3).to(torch.uint8).numpy())
    model = ClassMean().fit(data, Privacy(epsilon), seed=seed)
    return model.save(folder) if run else model.write_samples(model.sample(60, seed=1), folder)


def scores(value: float, folder: Path) -> dict[str, Any]:
    row = {"name": "gen2real-cnn", "unit": "%", "better": "higher", "reads_private": False, "seeds": 3, "spread": 0.4}
    by_class = [{"class": c, "value": v, "spread": None} for c, v in zip(CLASSES, (90.0, None, 50.0), strict=True)]
    noisy = row | {"name": "ref-mmd", "unit": "1/1000", "better": "lower", "detail": {"noise_sd": 0.3}}
    rows = [row | {"value": value, "detail": {"by_class": by_class}}, noisy | {"value": 100 - value}]
    return {"metrics": rows, "files_sha256": sha256_file(folder / "SHA256SUMS")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("pages")
    release = make(top / "release", 1.0)
    out = {"release": write_report(release, top / "plain.html", scores=scores(71.0, release))}
    check = {"claim": 1.0, "delta": 1e-5, "confidence": 0.95, "ok": True, "verdict": "no fault shown"}
    checks = [
        check | {"name": "mechanism", "lower_bound": 0.62, "threat_model": "sees the noisy sums"},
        check | {"name": "images only, of a plan with another claim", "claim": 4.0, "lower_bound": None},
    ]
    (top / "audit.json").write_text(
        json.dumps({**checks[0], "checks": checks, "files_sha256": sha256_file(release / "SHA256SUMS")})
    )
    out["audited"] = write_report(release, top / "audited.html", scores=scores(71.0, release), audit=top / "audit.json")
    free = make(top / "free", float("inf"), 3)
    out["non-private"] = write_report(free, scores=scores(95.0, free))
    runs = [release, make(top / "strong", 0.3, run=True), make(top / "research", 4.0, 5, run=True), free]
    for folder, value in zip(runs[1:], (40.0, 88.0, 95.0), strict=True):  # a run keeps its figures in private/
        (folder / "private").mkdir()
        (folder / "private" / "metrics.json").write_text(json.dumps(scores(value, folder)))
    bad = make(top / "bad", 1.0)
    (bad / "labels.csv").write_text("edited")
    out["failed"] = write_report(bad)
    out["comparison"] = write_comparison([*runs, bad], top / "runs.html")
    return out


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Page]:
    assert BINARY is not None
    with browser.chromium(BINARY) as tab:
        yield tab


def test_the_check_itself_sees_faults(page: browser.Page, tmp_path: Path) -> None:
    """A page with every fault that is looked for below."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><meta name='viewport' content='width=device-width'><body style='color:#999'>"
        "<script>console.error('x')</script><img src='http://127.0.0.1:9/x.png'><h1>a</h1><h3>b</h3>"
        "<table><tr><td>c</td></tr></table><div style='width:700px'>wide</div></body></html>"
    )
    page.console.clear()
    page.requests.clear()
    page.open(bad, width=375)
    assert page.console and foreign(page)
    assert page.run(WIDE) and page.run(PALE) and unnamed(page) and page.run(SKIPPED)


@pytest.mark.parametrize("kind", KINDS)
def test_silent_offline_and_readable_at_every_width(page: browser.Page, pages: dict[str, Path], kind: str) -> None:
    page.console.clear()
    page.requests.clear()
    for width in (375, 320, 768, 1280):
        page.open(pages[kind], width=width)
        assert page.run("innerWidth") == width
        assert page.run(WIDE) == [], width
    assert page.run("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)") >= 12
    assert not page.console and not foreign(page)


@pytest.mark.parametrize("kind", KINDS)
def test_letters_stand_out_in_light_dark_and_print(page: browser.Page, pages: dict[str, Path], kind: str) -> None:
    for look in ({}, {"dark": True}, {"print_": True}):
        page.open(pages[kind], width=1000, **look)
        assert page.run(PALE) == [], look


@pytest.mark.parametrize("kind", KINDS)
def test_screen_readers_find_names_and_order(page: browser.Page, pages: dict[str, Path], kind: str) -> None:
    for width in (375, 1000):  # on a phone tables are laid out as cards, and must still be tables
        page.open(pages[kind], width=width)
        assert unnamed(page) == []
        assert page.run(SKIPPED) == []
        roles = [n["role"]["value"] for n in tree(page)]
        assert roles.count("main") == 1 and roles.count("table") >= 1 and "cell" in roles
        tables = page.run("document.querySelectorAll('table').length")
        assert roles.count("table") == tables
    assert page.run("document.documentElement.lang") == "en" and page.run("document.title")


@pytest.mark.parametrize("kind", ["audited", "comparison"])
def test_the_keyboard_reaches_everything_that_can_be_followed(
    page: browser.Page, pages: dict[str, Path], kind: str
) -> None:
    page.open(pages[kind], width=1000)
    links = page.run("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    seen = []
    for _ in links:
        page.press("Tab")
        seen.append(page.run("document.activeElement.getAttribute('href')"))
        box = page.run("(r => [r.left, r.right])(document.activeElement.getBoundingClientRect())")
        assert 0 <= box[0] < box[1] <= 1000
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen == links and links[0] == "#content"
    targets = page.run("[...document.querySelectorAll('a')].every(a => document.querySelector(a.hash))")
    assert targets is True
    if kind == "audited":
        page.press("Enter")
        assert page.run("location.hash") == links[-1]


def foreign(page: browser.Page) -> list[str]:
    return [url for url in page.requests if not url.startswith(("file:", "data:"))]


def tree(page: browser.Page) -> list[dict[str, Any]]:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    return [n for n in nodes if not n["ignored"]]


def unnamed(page: browser.Page) -> list[str]:
    """Roles that need a name and have none."""
    needed = ("image", "img", "link", "table", "navigation", "region", "heading")
    return [
        n["role"]["value"]
        for n in tree(page)
        if n["role"]["value"] in needed and not n.get("name", {}).get("value", "").strip()
    ]


WIDE = """[...document.body.querySelectorAll('main, main *, body > *')].filter(e => {
  const r = e.getBoundingClientRect();
  const wide = document.documentElement.clientWidth + 1;
  return r.width && r.left >= 0 && r.right > wide || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && getComputedStyle(e).overflowX === 'visible' && getComputedStyle(e).display !== 'inline'
    && e.namespaceURI.endsWith('html');
}).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40))"""

SKIPPED = """(() => {
  const levels = [...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1]);
  const jumps = levels.filter((l, i) => i && l > levels[i - 1] + 1).map(l => 'h' + l);
  return levels.filter(l => l === 1).length === 1 && levels[0] === 1 ? jumps : ['h1', ...jumps];
})()"""

PALE = """(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const over = (a, b) => a.length < 4 ? a : [0, 1, 2].map(i => a[3] * a[i] + (1 - a[3]) * b[i]);
  const light = c => c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const dark = matchMedia('(prefers-color-scheme: dark)').matches && !matchMedia('print').matches;
  const ground = e => {
    if (!e) return dark ? [17, 22, 28] : [255, 255, 255];
    const c = rgb(getComputedStyle(e).backgroundColor);
    return c.length === 4 && c[3] < 1 ? over(c, ground(e.parentElement)) : c;
  };
  const out = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, s = getComputedStyle(e);
    if (!walk.currentNode.textContent.trim() || !e.getClientRects().length || e.closest('style, script')) continue;
    const back = ground(e), ink = over(rgb(e.closest('svg') ? s.fill : s.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && +s.fontWeight >= 700);
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5))
      out.push(e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + ((a + 0.05) / (b + 0.05)).toFixed(2) + ': '
        + walk.currentNode.textContent.trim().slice(0, 40));
  }
  return out;
})()"""
