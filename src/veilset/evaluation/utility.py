"""How useful the images are: classifiers trained on one set and tested on the other.

gen2real trains on these images and tests on real ones: what the images are worth. real2gen trains on real images and
tests on these: whether labels are right, not whether images vary; one perfect picture per class scores 100 %.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from veilset.evaluation.protocols import CLASSIFIERS, SIX, THREE
from veilset.evaluation.registry import Answer, Entry, Trial, register

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images

BINS = 15  # of the calibration error


def accuracy(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Share of equal labels, in percent."""
    return 100 * (predicted == true).double().mean().item()


def recalls(predicted: torch.Tensor, true: torch.Tensor, classes: int) -> list[float | None]:
    """Accuracy over the images of each class, in percent; None for a class without images."""
    return [accuracy(predicted[true == k], true[true == k]) if (true == k).any() else None for k in range(classes)]


def calibration_error(said: torch.Tensor, true: torch.Tensor) -> float:
    """Expected calibration error in percent: |accuracy - confidence| of the top label over 15 equal bins.

    Guo et al. 2017 (arXiv 1706.04599), equation 3; a bin is (low, high], weighted by its share of the images.

    Args:
        said: probabilities float64 [N, K].
        true: labels int64 [N].
    """
    import torch

    confidence, label = said.max(1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gap = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, (label == true).double() - confidence)
    return 100 * gap.abs().sum().item() / len(true)


def _facts(trial: Trial, classifier: str, train: Images, test: Images) -> dict[str, Any]:
    """What a reader needs to compare a figure with another one."""
    from veilset.evaluation.training import LOGREG_ITERATIONS, logreg_images
    from veilset.networks.precision import fast_dtype

    absent = sorted(set(range(len(train.classes))) - set(train.y.unique().tolist()))
    known: dict[str, Any] = {}
    if absent:
        names = ", ".join(train.classes[k] for k in absent[:10])
        known["note"] = f"no image to learn these classes from, so none is ever recalled: {names}"
    if (p := trial.protocol_of(classifier)) is None:
        known |= {"protocol": f"logreg-{LOGREG_ITERATIONS}-iterations", "train_images": logreg_images(train)}
        return known | {"test_images": len(test)}
    return known | {
        "protocol": p.name,
        "epochs": p.epochs,
        "batch": p.batch_of(len(train)),
        "steps": p.steps(len(train)),
        "train_images": len(train),
        "test_images": len(test),
        "dtype": str(fast_dtype()).removeprefix("torch."),
    }


def gen2real(classifier: str, trial: Trial) -> Answer:
    """Accuracy on the real set of a classifier trained on these images."""
    value = accuracy(trial.said(classifier).argmax(1), trial.against.y)
    return Answer(value, facts=_facts(trial, classifier, trial.images, trial.against))


def per_class(classifier: str, trial: Trial) -> Answer:
    """The same within each class, and the mean over classes."""
    names = trial.against.classes
    by_class = recalls(trial.said(classifier).argmax(1), trial.against.y, len(names))
    seen = [v for v in by_class if v is not None]
    facts = _facts(trial, classifier, trial.images, trial.against)
    return Answer(sum(seen) / len(seen), dict(zip(names, by_class, strict=True)), facts)


def calibration(classifier: str, trial: Trial) -> Answer:
    """How far that classifier's confidence is from its accuracy."""
    value = calibration_error(trial.said(classifier), trial.against.y)
    return Answer(value, facts=_facts(trial, classifier, trial.images, trial.against) | {"bins": BINS})


def real2gen(classifier: str, trial: Trial) -> Answer:
    """Accuracy on these images of a classifier trained on the real set."""
    from veilset.evaluation.training import predict, train_any

    protocol = trial.protocol_of(classifier)
    model = train_any(classifier, trial.against, trial.seed, protocol)
    value = accuracy(predict(model, trial.images.x), trial.images.y)
    return Answer(value, facts=_facts(trial, classifier, trial.against, trial.images))


WORDS = {"logreg": "logistic regression", "mlp": "an MLP with 100 hidden units", "cnn": "the CNN"}
WORDS |= {"convnet32": "a ConvNet of 32 channels", "resnet8": "a residual network of 16, 32 and 64 channels"}
DEFAULT = {
    "gen2real-logreg",
    "gen2real-mlp",
    "gen2real-cnn",
    "gen2real-cnn-per-class",
    "gen2real-cnn-ece",
    "real2gen-cnn",
}

for _c in CLASSIFIERS:
    _who = WORDS.get(_c, f"{_c}, of the six networks of Private Set Generation,")
    _group = "six" if _c in SIX else "three" if _c in THREE[1:] else "utility"
    _kinds = {
        f"gen2real-{_c}": (gen2real, "higher", f"Accuracy on the real set of {_who} trained on these images."),
        f"gen2real-{_c}-per-class": (
            per_class,
            "higher",
            f"Mean over classes of the accuracy of gen2real-{_c} within a class; the detail lists every class.",
        ),
        f"gen2real-{_c}-ece": (calibration, "lower", f"Calibration error of the classifier of gen2real-{_c}."),
        f"real2gen-{_c}": (real2gen, "higher", f"Accuracy on these images of {_who} trained on the real set."),
    }
    for _name, (_run, _better, _doc) in _kinds.items():
        register(
            Entry(
                name=_name,
                unit="%",
                better=_better,  # type: ignore[arg-type]
                doc=_doc,
                run=partial(_run, _c),
                seeded=_c != "logreg",
                group=_group + ("-real2gen" if _group == "six" and _run is real2gen else ""),
                default=_name in DEFAULT,
            )
        )
