"""House rules that no linter knows: the public API, what is imported when, sizes, and words that must not occur."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import veilset
from veilset.methods.catalogue import BUILT_IN

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "veilset").rglob("*.py"))
HEAVY = ("torch", "scipy", "sklearn", "dp_accounting", "PIL", "jinja2", "rich", "cryptography")
LONGEST_FILE, LONGEST_FUNCTION = 500, 60
REVIEWED = 5800  # lines of code of all that the claim rests on: gradients, their compiled part and core/ included


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


# ---------------------------------------------------------------------- the public API


# Some are also modules; importing one binds the name, so the module itself can be called (see test_api.py).
CALLED = {
    "audit": ("veilset.audit.ladder", "climb"),
    "continual": ("veilset.continual.plan", "plan"),
    "methods": ("veilset.methods.catalogue", "methods"),
    "recommend": ("veilset.recommend.recommend", "recommend"),
    "tune": ("veilset.tune", "tune"),
}
PLAIN = ("synthesizers", "teachers", "testing")  # modules that hold public names, and cannot be called
HOME = {k: (v, k) for k, v in veilset._WHERE.items()} | CALLED | {k: ("veilset", k) for k in PLAIN}


def test_public_names_are_the_lazily_loaded_ones() -> None:
    assert sorted(veilset.__all__) == sorted(HOME) and sorted(veilset._MODULES) == sorted([*CALLED, *PLAIN])
    assert {*veilset.__all__, "__version__"} <= set(dir(veilset))


@pytest.mark.parametrize("name", veilset.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(veilset, name) is not None
    home, attribute = HOME[name]
    assert hasattr(import_module(home), attribute)


def test_public_functions_stay_callable_once_folders_of_the_same_name_are_imported() -> None:
    for name in veilset.__all__:
        if find_spec(f"veilset.{name}"):
            import_module(f"veilset.{name}")
        assert name in PLAIN or callable(getattr(veilset, name)), (
            f"veilset.{name} is hidden by the folder of the same name"
        )
    assert set(veilset.methods()) >= set(BUILT_IN)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        veilset.nonsense  # noqa: B018


def test_types_seen_by_checkers_are_the_lazily_loaded_ones() -> None:
    tree = ast.parse((ROOT / "src/veilset/__init__.py").read_text())
    guarded = next(n for n in tree.body if isinstance(n, ast.If))
    imports = [n for n in guarded.body if isinstance(n, ast.ImportFrom)]
    seen = {a.asname or a.name: (n.module, a.name) for n in imports for a in n.names}
    assert seen == HOME


def test_version_is_the_packages() -> None:
    assert f'version = "{veilset.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {veilset.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"[{veilset.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", BUILT_IN)
def test_catalogue_tells_the_truth(name: str) -> None:
    from veilset.methods.base import Synthesizer

    entry = BUILT_IN[name]
    cls = getattr(import_module(entry.module), entry.attribute)
    assert issubclass(cls, Synthesizer) and cls.name == name
    assert entry.summary and entry.summary[0].islower() and not entry.summary.endswith(".")


# ---------------------------------------------------------------------- what is imported when


@pytest.mark.parametrize(
    "code",
    [
        "import veilset",
        "import veilset.cli.main as m; m.main(['--help'])",
        "import veilset.cli.main as m; m.main(['methods'])",
        "import veilset.cli.main as m; m.main(['methods', '--json'])",
        "import veilset.cli.main as m; m.main(['fit', '--help'])",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    report = f"import sys; print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))"
    program = f"try:\n    {code}\nexcept SystemExit as e:\n    assert not e.code\n{report}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_file_and_its_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for f in functions(ast.parse(text)):
        assert (f.end_lineno or 0) - f.lineno + 1 <= LONGEST_FUNCTION, f.name


def test_the_list_of_what_the_claim_rests_on_is_true() -> None:
    spec = spec_from_file_location("make_trust", ROOT / "docs" / "make_trust.py")
    assert spec and spec.loader
    trust = module_from_spec(spec)
    spec.loader.exec_module(trust)
    assert trust.PAGE.read_text() == trust.text(), "run python docs/make_trust.py"
    files = trust.trusted()
    assert {p.parent.name for p in files} == {"veilset", "privacy", "mechanisms", "gradients", "run", "core"}, (
        "it rests on nothing above"
    )
    assert sum(map(trust.code_lines, files)) <= REVIEWED


# ---------------------------------------------------------------------- docstrings and words


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing = [] if ast.get_docstring(tree) or not tree.body else ["the module"]
    # A verb's `add` and `run` are described by the docstring of its module, which is also its help.
    known = {"add", "run", "run_with_rest"} if "cli" in path.parts else set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            described = ast.get_docstring(node) or node.name == "Config"  # every field of a Config has words of its own
            missing += [] if described else [node.name]
            missing += [f"{node.name}.{f.name}" for f in _undocumented(node.body, set(), bool(node.bases))]
    missing += [f.name for f in _undocumented(tree.body, known, False)]
    assert not missing


def _undocumented(body: list[ast.stmt], known: set[str], inherits: bool) -> list[ast.FunctionDef]:
    found = [n for n in body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and n.name not in known]
    # An override of a documented method needs no other words.
    return [f for f in found if not ast.get_docstring(f) and not inherits]


def test_every_option_says_what_it_means() -> None:
    from veilset.core.config import fields
    from veilset.methods.catalogue import method_class

    for name, entry in BUILT_IN.items():
        if find_spec(entry.module):
            assert all(len(f.doc) > 5 for f in fields(method_class(name).Config)), name


LOCAL = re.compile(r"(?<![\w.])/(?:home|root|Users|mnt|work)/\w")


def test_results_and_docs_name_no_local_path() -> None:
    files = [p for name in ("src", "docs", "benchmarks") for p in (ROOT / name).rglob("*")]
    files += [p for p in ROOT.iterdir() if not p.name.startswith(".")]
    texts = {".py", ".md", ".toml", ".txt", ".cff", ".svg", ".sh", ".j2", ".json", ""}
    named = [
        where(p) for p in files if p.is_file() and p.suffix in texts and LOCAL.search(p.read_text(errors="ignore"))
    ]
    assert LOCAL.search("see /home/me/scans") and not named


PICKLES = re.compile(r"^\s*(import|from)\s+(pickle|cPickle|dill|cloudpickle|joblib)\b|\btorch\.(load|save)\(", re.M)


# Public weights, named by their SHA-256, are the one exception, in one call that reads tensors alone.
WEIGHTS = ("src/veilset/evaluation/weights.py", 'torch.load(path, map_location="cpu", weights_only=True)')


@pytest.mark.parametrize("path", SOURCES, ids=where)
def test_no_pickle_is_written_or_opened(path: Path) -> None:
    text = path.read_text()
    if where(path) == WEIGHTS[0]:
        assert text.count(WEIGHTS[1]) == 1 and text.index("_check_hash(path, sha256)") < text.index(WEIGHTS[1])
        text = text.replace(WEIGHTS[1], "")
    assert not PICKLES.search(text)
    assert "allow_pickle=True" not in text


def test_only_the_gate_opens_private_images() -> None:
    users = {where(p) for p in SOURCES if re.search(r"\._open\(", p.read_text())}
    assert users == {"src/veilset/privacy/gate.py", "src/veilset/privacy/private.py"}


def test_protecting_noise_is_drawn_in_one_file() -> None:
    drawing = re.compile(r"\bStream\(|\bKeys\(")
    users = {p.name for p in SOURCES if drawing.search(p.read_text()) and "selftest" not in p.parts}
    assert users == {"noise.py", "gate.py"}  # and looked at by the self-test


# ---------------------------------------------------------------------- papers of the house


def test_the_licence_is_the_whole_text() -> None:
    from hashlib import sha256

    # The text as the Apache Software Foundation publishes it, with its appendix.
    known = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == known


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    broken = []
    for page in filter(Path.exists, pages):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{where(page)}: {target}")
    assert not broken
