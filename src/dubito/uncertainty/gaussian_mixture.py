"""Mixtures of Gaussians with full covariances: their density, and how many components the data bear.

Density: ``p(h) = sum_m w_m N(h | mu_m, Sigma_m)``, weights included (the mixture of Zhu et al. 2023,
https://doi.org/10.1063/5.0136574). The number of components minimises the BIC (Schwarz 1978,
https://doi.org/10.1214/aos/1176344136) among those up to which the likelihood of structures held out still rises:
on latents the BIC alone may fall up to any cap, while the mixture learns training atoms by heart.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch

from dubito.core.errors import DataError, ModelError
from dubito.core.logs import get_logger
from dubito.core.random import generator, seed_for
from dubito.data.prediction import Array

log = get_logger(__name__)
# Atoms times components evaluated at a time: 64 MB in 16 dimensions.
PAIRS_PER_CHUNK = 250_000
# Fewer structures than this are not worth splitting; the BIC then decides alone.
MIN_STRUCTURES_TO_HOLD_OUT = 10
# So many sizes in a row below the best held-out likelihood end the search.
PATIENCE = 2
MAX_REGULARISATION = 1.0
EM_STEPS = 200


@dataclass(frozen=True)
class GaussianMixture:
    """k Gaussians in d dimensions, float64.

    Attributes
    ----------
    weights : (k,) sum to one
    means : (k, d)
    precisions_cholesky : (k, d, d) upper triangular ``P`` with ``P P^T = Sigma^-1``
    """

    weights: Array
    means: Array
    precisions_cholesky: Array

    def negative_log_likelihood(self, features: Array) -> Array:
        """Return ``-log p(h)`` of features (N, d), (N,) float64, in bounded memory."""
        weights, means, factors = (torch.from_numpy(np.ascontiguousarray(x, "f8")) for x in self._arrays())
        k, d = means.shape
        log_det = torch.log(torch.diagonal(factors, dim1=1, dim2=2)).sum(dim=1)
        constant = torch.log(weights) + log_det - 0.5 * d * math.log(2 * math.pi)
        out = np.empty(len(features))
        step = max(1, PAIRS_PER_CHUNK // k)
        for start in range(0, len(features), step):
            part = torch.from_numpy(np.ascontiguousarray(features[start : start + step], "f8"))
            scaled = torch.einsum("nkd,kde->nke", part[:, None] - means, factors)
            out[start : start + step] = -torch.logsumexp(constant - 0.5 * (scaled**2).sum(dim=2), dim=1).numpy()
        return out

    def _arrays(self) -> tuple[Array, Array, Array]:
        return self.weights, self.means, self.precisions_cholesky

    def state(self, prefix: str) -> dict[str, Array]:
        """Return the arrays to save."""
        names = ("weights", "means", "precisions_cholesky")
        return {f"{prefix}.{name}": value for name, value in zip(names, self._arrays(), strict=True)}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], prefix: str) -> Self:
        """Restore what :meth:`state` gave."""
        names = ("weights", "means", "precisions_cholesky")
        return cls(*(arrays[f"{prefix}.{name}"] for name in names))


@dataclass(frozen=True)
class MixtureChoice:
    """How a mixture came about.

    Attributes
    ----------
    n_components : chosen
    decided_by : ``bic``, ``held_out`` (the BIC would have taken more), ``cap`` (the largest size tried) or
        ``atoms`` (too few for more)
    tried : sizes; bic : per atom, of the atoms fitted to; held_out : mean log likelihood of those held out, or empty
    regularisation : added to the variances; more than asked for where a covariance was singular
    converged : whether the expectation maximisation of the chosen one ended by itself
    n_atoms : fitted to
    """

    n_components: int
    decided_by: str
    tried: list[int]
    bic: list[float]
    held_out: list[float]
    regularisation: float
    converged: bool
    n_atoms: int

    def record(self) -> dict[str, Any]:
        """Return it for a file."""
        return asdict(self)


def fit_mixture(
    features: Array, structure: Array, *, max_components: int, regularisation: float, seed: int
) -> tuple[GaussianMixture, MixtureChoice]:
    """Fit a mixture by expectation maximisation (scikit-learn, from k-means).

    Parameters
    ----------
    features : (N, d), standardised
    structure : (N,) the structure of each atom; whole structures are held out
    max_components : the largest mixture tried
    regularisation : added to the variances

    Raises
    ------
    DataError
        When there are no more atoms than dimensions.
    ModelError
        When covariances stay singular whatever is added to them.
    """
    n, d = features.shape
    if n <= d:
        raise DataError(
            f"A Gaussian in the {d} latents needs at least {d + 1} atoms to be fitted to, found {n}. Label more "
            "structures, or take the method 'distance', whose covariance is shrunk."
        )
    held = _held_out(structure, seed)
    fitted, rest = features[~held], features[held]
    if len(fitted) <= d:
        fitted, rest = features, features[:0]
    # A covariance of its own for fewer atoms than d + 1 would be made of the regularisation.
    bound = min(max_components, max(1, len(np.unique(fitted, axis=0)) // (d + 1)))
    tried, models, bic, held_out = [], [], [], []
    for k in sizes(bound):
        model, regularisation = _expectation_maximisation(fitted, k, regularisation, seed)
        tried.append(k)
        models.append(model)
        bic.append(float(model.bic(fitted)) / len(fitted))
        if len(rest):
            held_out.append(float(model.score(rest)))
            if len(held_out) - 1 - int(np.argmax(held_out)) >= PATIENCE:
                break
    last = int(np.argmax(held_out)) if held_out else len(tried) - 1
    chosen = int(np.argmin(bic[: last + 1]))
    decided = "bic"
    if chosen == last:
        at_end = "cap" if bound == max_components else "atoms"
        decided = "held_out" if last + 1 < len(tried) and bic[last + 1] < bic[last] else decided
        decided = at_end if tried[chosen] == bound else decided
    # The same components, now seeing those held out too.
    model, regularisation = _expectation_maximisation(
        features, tried[chosen], regularisation, seed, start=models[chosen]
    )
    mixture = GaussianMixture(model.weights_, model.means_, model.precisions_cholesky_)
    choice = MixtureChoice(tried[chosen], decided, tried, bic, held_out, regularisation, bool(model.converged_), n)
    return mixture, choice


def sizes(largest: int) -> list[int]:
    """Return the numbers of components tried: all up to 8, then a fifth more each time, up to the largest."""
    out = [1]
    while out[-1] < largest:
        out.append(min(largest, max(out[-1] + 1, round(1.2 * out[-1]))))
    return out


def _held_out(structure: Array, seed: int) -> Array:
    """Return which atoms (N,) belong to the tenth of the structures that is held out; none where they are few."""
    distinct = np.unique(structure)
    if len(distinct) < MIN_STRUCTURES_TO_HOLD_OUT:
        return np.zeros(len(structure), bool)
    chosen = generator(seed, "mixture", "held out").choice(distinct, max(1, len(distinct) // 10), replace=False)
    out: Array = np.isin(structure, chosen)
    return out


def _expectation_maximisation(
    features: Array, k: int, regularisation: float, seed: int, start: Any = None
) -> tuple[Any, float]:
    """Return scikit-learn's mixture and the regularisation it took: ten times more until no covariance is singular."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Estimator
    from threadpoolctl import threadpool_limits

    given: dict[str, Any] = {}
    if start is not None:
        given = {
            "weights_init": start.weights_,
            "means_init": start.means_,
            "precisions_init": start.precisions_,
        }
    while True:
        model = Estimator(
            k, reg_covar=regularisation, max_iter=EM_STEPS, random_state=seed_for(seed, "mixture", k) % 2**32, **given
        )
        try:
            # One thread: with more, k-means adds up in an order that changes from run to run.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore", ConvergenceWarning)
                return model.fit(features), regularisation
        except ValueError as error:
            if given:
                # The start's precisions may be too badly conditioned to be taken up; k-means starts without.
                given = {}
                continue
            if "ill-defined" not in str(error):
                raise
            if regularisation >= MAX_REGULARISATION:
                raise ModelError(
                    f"The covariances of {k} components stay singular with {regularisation:g} added to variances of "
                    "one. Look for structures that occur many times over, or for a broken model."
                ) from error
            log.warning("a covariance of %d components is singular with %g added; ten times more", k, regularisation)
            regularisation = min(10 * regularisation, MAX_REGULARISATION)
