"""The compiled part: equal to torch's operators and to `vmap(grad)`, not trusted when it is wrong, never needed."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from veilset.privacy.alone import steady_rows
from veilset.privacy.gradients import Clipped, Total, build, convolution, kernels
from veilset.privacy.gradients.taps import tapped

ROOT = Path(__file__).parents[3]
#        C   O  H  W   kernel  stride  padding dilation
GRID = [
    (1, 32, 12, 12, (3, 3), (1, 1), (1, 1), (1, 1)),
    (1, 7, 9, 5, (5, 2), (2, 1), (2, 0), (1, 1)),
    (3, 6, 11, 11, (5, 5), (1, 1), (2, 2), (1, 1)),
    (3, 20, 8, 8, (3, 3), (1, 2), (1, 2), (2, 2)),
    (15, 33, 5, 5, (3, 3), (1, 1), (1, 1), (1, 2)),
    (16, 16, 7, 7, (3, 3), (1, 1), (1, 1), (1, 1)),
    (17, 5, 7, 7, (3, 3), (1, 1), (0, 0), (1, 1)),
    (18, 9, 9, 9, (3, 3), (1, 1), (0, 0), (2, 1)),
    (20, 7, 11, 11, (4, 4), (3, 2), (0, 1), (1, 1)),
    (32, 1, 6, 6, (3, 3), (1, 1), (1, 1), (1, 1)),
    (48, 70, 6, 6, (4, 4), (2, 2), (1, 1), (1, 1)),
    (100, 13, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1)),
    (33, 4, 2, 3, (5, 7), (1, 1), (2, 3), (1, 1)),  # a kernel larger than the image
    (2, 4, 1, 1, (3, 3), (2, 2), (1, 1), (1, 1)),
]
WIDTHS = (4, 8, 16)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """A library of these sources, whether or not the package at hand has one."""
    if not build.supported() or not any(map(shutil.which, (os.environ.get("CXX") or "", "c++", "g++", "clang++"))):
        pytest.skip("no compiler here")
    path, before = tmp_path_factory.mktemp("made") / "_kernels.so", kernels.LIBRARY
    build.build(path)
    kernels.LIBRARY = path
    kernels.library.cache_clear()
    yield path
    kernels.LIBRARY = before
    kernels.library.cache_clear()


@pytest.fixture(params=WIDTHS)
def width(request):
    """Each kind of vector that this processor has."""
    library = kernels.library()
    library.veilset_narrow(request.param)
    if library.veilset_width() != request.param:
        pytest.skip("not on this processor")
    yield request.param
    library.veilset_narrow(16)


def without(function, *arguments):
    """What is given without the compiled part."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(kernels, "library", lambda: None)
        return function(*arguments)


def numbers(case, n: int, images: int = 1) -> tuple:
    """Arguments of `weight_gradients` with random numbers."""
    c, o, h, w, kernel, stride, padding, dilation = case
    high, wide = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((h, w), kernel, stride, padding, dilation, strict=True)
    )
    g = torch.Generator().manual_seed(c * 100 + o)
    large, small = (torch.randn(n * images, *v, generator=g) for v in ((c, h, w), (o, high, wide)))
    return large, small, n, kernel, stride, padding, dilation


def joined(pieces, join, squares) -> torch.Tensor:
    return join(list(pieces)).double()


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("case", GRID, ids=str)
def test_a_convolutions_gradients_and_norms_are_those_of_exact_arithmetic(case, images, width):
    for n in (1, 5):
        args = numbers(case, n, images)
        got = convolution.weight_gradients(*args)
        wide = [a.double() if isinstance(a, torch.Tensor) else a for a in args]
        wanted = joined(*convolution.weight_gradients(*wide))
        assert got[2] is not None and float((joined(*got) - wanted).norm() / wanted.norm()) < 1e-6
        own = joined(*got).flatten(1).square().sum(1)
        assert torch.allclose(got[2], own, rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", GRID, ids=str)
def test_bfloat16_is_multiplied_exactly_and_every_width_and_number_of_threads_gives_the_same_bits(case):
    args = numbers(case, 5)
    half = [a.bfloat16() if isinstance(a, torch.Tensor) else a for a in args]
    seen = []
    before, library = torch.get_num_threads(), kernels.library()
    try:
        for threads, width, given in (
            (1, 16, half),
            (1, 8, half),
            (3, 16, [v.float() if v is half[0] or v is half[1] else v for v in half]),
        ):
            torch.set_num_threads(threads)
            library.veilset_narrow(width)
            seen.append(convolution.weight_gradients(*given)[0][0].clone())
    finally:
        torch.set_num_threads(before)
        library.veilset_narrow(16)
    assert all(torch.equal(seen[0], v) for v in seen[1:])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30, 1e-40])
@pytest.mark.parametrize("case", [GRID[0], GRID[6], GRID[10]], ids=str)
def test_nan_infinity_huge_and_denormal_numbers_count_record_by_record(case, value, width):
    args = numbers(case, 4)
    args[0][1, 0, 1, 1] = value
    args[1][2, -1, 0, 0] = value
    if abs(value) < 1:  # a record of nothing else
        args[0][1], args[1][2] = value, value
    (pieces, join, squares), (others, other_join, _) = (
        convolution.weight_gradients(*args),
        without(convolution.weight_gradients, *args),
    )
    a, b = join(pieces), other_join(others)
    assert torch.equal(torch.isfinite(a).flatten(1).all(1), torch.isfinite(b).flatten(1).all(1))
    finite = torch.isfinite(b)
    assert torch.allclose(a[finite], b[finite], rtol=1e-4, atol=float(b[finite].abs().max()) * 1e-5)
    assert bool((a[1] != 0).any()) and torch.equal(
        torch.isfinite(squares), torch.isfinite(b.flatten(1).square().sum(1))
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("c", "groups", "side", "affine"), [(16, 4, 5, True), (32, 8, 1, True), (48, 3, 18, False), (96, 96, 4, True)]
)
def test_group_normalisation_is_that_of_exact_arithmetic(c, groups, side, affine, kind, width):
    g = torch.Generator().manual_seed(c)
    x = (torch.randn(6, c, side, side, generator=g) * 3 + 10).to(kind)
    up = torch.randn(6, c, side, side, generator=g).to(kind)
    scale, shift = (torch.randn(c, generator=g), torch.randn(c, generator=g)) if affine else (None, None)
    norm = kernels.GroupNorm(x, scale, shift, groups, 1e-5)
    got = norm.y, *norm.backward(up)
    exact = x.double().requires_grad_()
    ones = [
        (torch.ones(6, c) if v is None else v.expand(6, c)).double().requires_grad_()
        for v in (scale, torch.zeros(c) if shift is None else shift)
    ]
    y = nn.functional.group_norm(exact, groups) * ones[0][..., None, None] + ones[1][..., None, None]
    wanted = y.detach(), *torch.autograd.grad((y * up.double()).sum(), [exact, *ones])
    for a, b in zip(got, wanted, strict=True):
        close = 1e-2 if a.dtype == torch.bfloat16 else 2e-5
        assert float((a.double() - b).norm()) <= close * float(b.norm()) + 1e-4 * (side == 1)


def test_the_sum_is_added_in_float64_and_a_record_of_share_zero_is_not_looked_at(width):
    g = torch.Generator().manual_seed(0)
    rows, share = torch.randn(9, 5003, generator=g), torch.rand(9, generator=g, dtype=torch.float64)
    wanted = share @ rows.double()
    assert torch.allclose(kernels.mix(share, rows), wanted, rtol=1e-13, atol=1e-13)
    rows[4], share[4] = torch.nan, 0
    assert bool(torch.isfinite(kernels.mix(share, rows)).all())


# ---------------------------------------------------------------------- whole networks


class Net(nn.Module):
    """All that the compiled part does: few and many channels, strides, a transposed convolution, normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 32, 3, padding=1), nn.GroupNorm(4, 32)
        self.c, self.d = nn.Conv2d(32, 21, 4, 2, 1), nn.ConvTranspose2d(21, 3, 4, 2, 1, 1)
        self.out = nn.Linear(3 * 81, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, 1, 8, 8] -> [n, 4]."""
        h = torch.tanh(self.b(self.a(x)))
        return self.out(torch.tanh(self.d(torch.tanh(self.c(h)))).flatten(1))


def loss(net, x, y):
    return nn.functional.cross_entropy(net(x[None]), y[None])


def network() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net().to(memory_format=torch.channels_last)
        return net, (torch.zeros(1, 8, 8), torch.zeros((), dtype=torch.int64))


def decided(rows: int = 24) -> bool:
    """Whether a gate would take the fast path in chunks of so many rows, all of them: nothing mixes there."""
    net, like = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clipped = Clipped(loss, net, like)
        alone = steady_rows("r", clipped.look(loss, net, False), like, 4, rows) == rows
        return clipped.confirmed(loss, net, rows, 4, False) and clipped.fast and alone


def test_the_compiled_part_is_used_and_is_trusted():
    net, like = network()
    assert decided()
    sheet = tapped(loss, net, [v.expand(3, *v.shape) for v in like])
    assert set(sheet.squares) == {"a.weight", "c.weight", "d.weight"}
    with torch.autocast("cpu", torch.bfloat16):
        assert decided()
    assert kernels.words().startswith("compiled")


def wrong_rows(real):
    """ways in which the compiled part may be wrong -> what it gives then, from what it ought to give."""
    return {
        "one row skipped": lambda e, q: (e.index_fill(0, torch.tensor([5]), 0), q),
        "norm of the neighbour": lambda e, q: (e, q.roll(1)),
        "norm too small": lambda e, q: (e, q * 0.9),
        "value of the neighbour": lambda e, q: (e.roll(1, 0), q),
        "a trace of the row before": lambda e, q: (e + 1e-6 * e.roll(1, 0), q),
        "a trace of one row": lambda e, q: (e + 1e-6 * e[7], q),
    }


@pytest.mark.parametrize("fault", wrong_rows(None))
def test_wrong_rows_are_seen_before_any_record(fault, monkeypatch):
    real = kernels.convolution

    def planted(*arguments):
        e, q, across = real(*arguments)
        return (*wrong_rows(None)[fault](e, q), across) if len(q) > 20 else (e, q, across)  # in whole chunks alone

    monkeypatch.setattr(kernels, "convolution", planted)
    assert not decided()


def test_a_wrong_sum_is_seen_before_any_record(monkeypatch):
    real = kernels.mix
    monkeypatch.setattr(kernels, "mix", lambda share, rows: real(share[:-1], rows[:-1]))
    assert not decided()


def test_one_record_gives_what_it_gives_among_others():
    net, like = network()
    clipped = Clipped(loss, net, like)
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6) % 4

    def summed(some: slice) -> torch.Tensor:
        total, n = Total(clipped.size, 0.5, several=False), len(x[some])
        clipped.add(total, loss, net, (x[some], y[some]), torch.arange(n), torch.ones(n))
        return total.sum

    alone = sum(summed(slice(i, i + 1)) for i in range(6))
    assert float((alone - summed(slice(0, 6))).norm()) < 1e-6


# ---------------------------------------------------------------------- when there is none


def test_a_file_that_is_cut_changed_or_foreign_is_not_loaded(compiled, tmp_path, monkeypatch):
    whole = compiled.read_bytes()
    foreign = whole[:18] + b"\xb7\x00" + whole[20 : -build.DIGEST]  # the machine's number in the header
    cases = {
        "cut": whole[:3000],
        "empty": b"",
        "changed": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        "foreign": foreign + build.digest(foreign),
    }
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "_kernels.so")
    for content in cases.values():
        kernels.LIBRARY.write_bytes(content)
        kernels.library.cache_clear()
        with pytest.warns(UserWarning, match="_kernels.so is not used"):
            assert kernels.library() is None
        assert decided(8) and kernels.words() == "torch's operators"
    kernels.LIBRARY.unlink()
    kernels.library.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.library() is None and decided(8)
    monkeypatch.undo()
    kernels.library.cache_clear()


def test_a_library_of_another_source_is_not_loaded(compiled, monkeypatch, tmp_path):
    other = tmp_path / "kernels.cpp"
    other.write_text(build.SOURCE.read_text() + "// changed\n")
    monkeypatch.setattr(build, "SOURCE", other)
    kernels.library.cache_clear()
    with pytest.warns(UserWarning, match="another source"):
        assert kernels.library() is None
    monkeypatch.undo()
    kernels.library.cache_clear()


def test_a_compiler_that_fails_leaves_what_was_there(compiled, tmp_path, monkeypatch):
    place = tmp_path / "_kernels.so"
    place.write_bytes(b"as it was")
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(subprocess.CalledProcessError):
        build.build(place)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(OSError, match="no-such-compiler"):
        build.build(place)
    assert place.read_bytes() == b"as it was" and [p.name for p in tmp_path.iterdir()] == ["_kernels.so"]


def test_a_failing_compiler_does_not_fail_an_installation(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("no setuptools here")
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=copy, env=os.environ | {"CXX": "false"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "veilset: no compiled part, gradients will take longer: false failed" in done.stderr.splitlines()
    assert not [*copy.rglob("*.so")]


def test_two_that_build_at_once_leave_a_whole_library(tmp_path):
    program = "import build, sys; build.build(build.Path(sys.argv[1]))"
    place, here = tmp_path / "_kernels.so", build.SOURCE.parent
    both = [subprocess.Popen([sys.executable, "-c", program, str(place)], cwd=here) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    content = place.read_bytes()
    assert build.digest(content[: -build.DIGEST]) == content[-build.DIGEST :]
    assert ctypes.CDLL(str(place)).veilset_width() in WIDTHS
    assert [p.name for p in tmp_path.iterdir()] == ["_kernels.so"]


def test_it_compiles_for_the_other_processor_if_a_compiler_is_there(tmp_path, monkeypatch):
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    if not shutil.which(f"{other}-linux-gnu-g++"):
        pytest.skip("no compiler for it")
    monkeypatch.setenv("CXX", f"{other}-linux-gnu-g++")
    build.build(tmp_path / "_kernels.so", other)
    assert (tmp_path / "_kernels.so").stat().st_size > 10_000
