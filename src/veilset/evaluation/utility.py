"""How useful the images are: classifiers trained on one set and tested on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from veilset.evaluation.registry import Answer, Trial, metric

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images


def accuracy(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Share of equal labels, in percent."""
    return 100 * (predicted == true).double().mean().item()


def recalls(predicted: torch.Tensor, true: torch.Tensor, classes: int) -> list[float | None]:
    """Accuracy over the images of each class, in percent; None for a class without images."""
    return [accuracy(predicted[true == k], true[true == k]) if (true == k).any() else None for k in range(classes)]


def _facts(trial: Trial, train: Images, test: Images) -> dict[str, Any]:
    """What a reader needs to compare a CNN figure with another one."""
    from veilset.networks.classifiers import fast_dtype

    p = trial.protocol
    return {
        "protocol": p.name,
        "epochs": p.epochs,
        "batch": p.batch_of(len(train)),
        "steps": p.steps(len(train)),
        "train_images": len(train),
        "test_images": len(test),
        "dtype": str(fast_dtype()).removeprefix("torch."),
    }


@metric("gen2real-logreg", unit="%", better="higher", seeded=False)
def gen2real_logreg(trial: Trial) -> Answer:
    """Accuracy on the real set of logistic regression trained on these images."""
    from veilset.evaluation.protocols import LOGREG_ITERATIONS, logreg_images, predict, train_logreg

    model = train_logreg(trial.images, trial.seed)
    facts = {
        "protocol": f"logreg-{LOGREG_ITERATIONS}-iterations",
        "train_images": logreg_images(trial.images),
        "test_images": len(trial.against),
    }
    return Answer(accuracy(predict(model, trial.against.x), trial.against.y), facts=facts)


@metric("gen2real-cnn", unit="%", better="higher")
def gen2real_cnn(trial: Trial) -> Answer:
    """Accuracy on the real set of the CNN trained on these images."""
    value = accuracy(trial.cnn_labels, trial.against.y)
    return Answer(value, facts=_facts(trial, trial.images, trial.against))


@metric("gen2real-cnn-per-class", unit="%", better="higher")
def gen2real_cnn_per_class(trial: Trial) -> Answer:
    """Mean over classes of the accuracy of gen2real-cnn within a class; the detail lists every class."""
    names = trial.against.classes
    by_class = recalls(trial.cnn_labels, trial.against.y, len(names))
    seen = [v for v in by_class if v is not None]
    facts = _facts(trial, trial.images, trial.against)
    return Answer(sum(seen) / len(seen), dict(zip(names, by_class, strict=True)), facts)


@metric("real2gen-cnn", unit="%", better="higher")
def real2gen_cnn(trial: Trial) -> Answer:
    """Accuracy on these images of the CNN trained on the real set; says if labels are right, not if images vary."""
    from veilset.evaluation.protocols import predict, train_cnn

    model = train_cnn(trial.against, trial.seed, trial.protocol)
    value = accuracy(predict(model, trial.images.x), trial.images.y)
    return Answer(value, facts=_facts(trial, trial.against, trial.images))
