"""From features to one score a candidate: thresholds, a shadow logistic regression, and calibration by shadow models.

Membership in shadow models is known to whoever trained them; membership in the target is used by none of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SHADOW, LIRA, CALIBRATED = "shadow-logistic", "lira", "calibrated-logistic"
HEADLINE = CALIBRATED  # fixed before any result: the attack whose figures stand for the run
EXTREME = 6.0  # standardised features are cut there: one strange record must not move a regression


@dataclass(frozen=True)
class Shadows:
    """Features of candidates under models whose training sets are known.

    Attributes:
        names: of the F features.
        x: [S, n, F].
        inside: bool [S, n], whether model s was trained on candidate i; each is in half of the models.
    """

    names: tuple[str, ...]
    x: Array
    inside: Array

    def without(self, *numbers: int) -> Shadows:
        """The same without some of the models."""
        kept = [s for s in range(len(self.x)) if s not in numbers]
        return Shadows(self.names, self.x[kept], self.inside[kept])

    def outside_mean(self, but: int | None = None) -> Array:
        """Mean features [n, F] over the models that were not trained on a candidate, leaving model `but` out."""
        weight = (~self.inside).astype(float)
        if but is not None:
            weight[but] = 0.0
        assert (weight.sum(0) > 0).all(), "a candidate is in every model that is left: there is nothing to compare with"
        return np.einsum("snf,sn->nf", self.x, weight) / weight.sum(0)[:, None]


def attacks(target: Array, shadows: Shadows) -> dict[str, Array]:
    """The score of every attack, larger for members: [n] each.

    * each feature by itself, as a threshold attack (Yeom et al. 2018): nothing is learned;
    * shadow-logistic: a logistic regression that tells records in from records out of the shadow models (Shokri et
      al. 2017, with the regression of Gandhi and Viradiya), asked about the target;
    * lira: Carlini et al. 2022, Equation 4: the likelihood ratio of a candidate's features under Gaussians fitted to
      its own values in and out of the shadow models. As they advise for few shadow models, all records share one
      covariance;
    * calibrated-logistic: as shadow-logistic, on the features and beside them the same less the candidate's mean over
      the shadow models that were not trained on it (difficulty calibration, Watson et al. 2022), so that hard and easy
      records compare.

    Args:
        target: features [n, F] of the attacked model.
        shadows: at least four models.
    """
    out = {name: target[:, i] for i, name in enumerate(shadows.names)}
    out[SHADOW] = _regression(target, shadows.x, shadows.inside)
    out[LIRA] = _likelihood_ratio(target, shadows)
    seen = np.stack([_beside(x, shadows.outside_mean(but=s)) for s, x in enumerate(shadows.x)])
    out[CALIBRATED] = _regression(_beside(target, shadows.outside_mean()), seen, shadows.inside)
    return out


def by_labels(x: Array, inside: Array, learn: Array) -> Array:
    """The attack as Gandhi and Viradiya had it: no shadow models; a regression is told who is a member among a part.

    Args:
        x: features [n, F] of one model. inside: bool [n], members. learn: bool [n], whose membership is told.

    Returns:
        Scores of the others, in order.
    """
    return _regression(x[~learn], x[None, learn], inside[None, learn])


def _beside(x: Array, usual: Array) -> Array:
    """Features [n, F], and how far they are from what is usual for each candidate: [n, 2 F]."""
    return np.concatenate([x, x - usual], axis=1)


def _regression(target: Array, x: Array, inside: Array) -> Array:
    """Fit in against out on x [S, n, F]; the decision values [n] of target [n, F]."""
    from sklearn.linear_model import LogisticRegression

    rows = x.reshape(-1, x.shape[2])
    centre = np.median(rows, 0)
    spread = np.maximum(np.median(np.abs(rows - centre), 0) * 1.4826, np.maximum(1e-3 * rows.std(0), 1e-12))

    def standard(v: Array) -> Array:
        return np.clip((v - centre) / spread, -EXTREME, EXTREME)

    model = LogisticRegression(C=1.0, max_iter=500).fit(standard(rows), inside.reshape(-1))
    score: Array = model.decision_function(standard(target))
    return score


def _likelihood_ratio(target: Array, shadows: Shadows) -> Array:
    """Log N(t; in mean, cov) - log N(t; out mean, cov) = (in - out)' cov^-1 (t - (in + out) / 2): [n]."""
    x, inside = shadows.x, shadows.inside[..., None]
    count = np.maximum(inside.sum(0), 1)
    within = (x * inside).sum(0) / count
    without = (x * ~inside).sum(0) / np.maximum((~inside).sum(0), 1)
    rest = (x - np.where(inside, within, without)).reshape(-1, x.shape[2])
    freedom = len(rest) * (1 - 2 / len(x))  # two means were fitted to each record's S values
    covariance = rest.T @ rest / max(freedom, 1.0)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    correlation = covariance / np.outer(scale, scale) + 1e-3 * np.eye(len(scale))
    direction = np.linalg.solve(correlation, ((within - without) / scale).T).T
    score: Array = (direction * (target - (within + without) / 2) / scale).sum(1)
    return score
