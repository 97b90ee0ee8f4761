"""The normal-inverse-gamma likelihood in ``d`` dimensions with one shared variance: pure functions.

``y | mu, s2 ~ N(mu, s2 I)``, ``mu | s2 ~ N(gamma, s2 / nu I)``, ``s2 ~ IG(alpha, beta)``; marginally y is a
multivariate Student t with ``2 alpha`` degrees of freedom and the shape matrix ``beta (1 + nu) / (nu alpha) I``.
Amini et al. 2020 (https://arxiv.org/abs/1910.02600) give d = 1. For forces d = 3: the exponents are 3/2, and the error
enters squared, as a vector; its norm put into the scalar likelihood gives three times the variance.

**What the data can't decide.** The likelihood knows ``nu`` and ``beta`` only through ``beta (1 + nu) / nu``. Along that
curve it stays the same while the aleatoric part ``beta / (alpha - 1)`` and the epistemic part
``beta / (nu (alpha - 1))`` change places: how the total is split is decided by the regulariser and the path of training
(Meinert et al. 2023, https://arxiv.org/abs/2205.10060; Jürgens et al. 2024, https://arxiv.org/abs/2402.09056).
Only the total is a finding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

# nu > 0 and alpha > 1 however far their pre-activations fall: at alpha = 1 the variance is infinite.
MIN_NU = 1e-6
MIN_ALPHA_ABOVE_ONE = 1e-4
# In squared units of the error: no deviation below 1e-4 of the unit.
MIN_BETA = 1e-8
# Length below which an error counts as none, in its unit: the norm has no gradient at 0.
EPSILON = 1e-3


@dataclass(frozen=True)
class NormalInverseGamma:
    """Parameters of N atoms, each (N,): ``nu`` and ``alpha`` without unit, ``beta`` in squared units of the error."""

    nu: Tensor
    alpha: Tensor
    beta: Tensor

    @property
    def omega(self) -> Tensor:
        """``2 beta (1 + nu)``, the scale of the squared error."""
        return 2 * self.beta * (1 + self.nu)

    @property
    def aleatoric(self) -> Tensor:
        """``E[s2]``, variance of a component; not identifiable, see the module."""
        return self.beta / (self.alpha - 1)

    @property
    def epistemic(self) -> Tensor:
        """``Var[mu]``, variance of a component; not identifiable, see the module."""
        return self.aleatoric / self.nu

    @property
    def total(self) -> Tensor:
        """Predictive variance of a component."""
        return self.aleatoric * (1 + self.nu) / self.nu


def from_activations(raw: Tensor, *, tie_nu_to_alpha: bool = False) -> NormalInverseGamma:
    """Return the parameters of pre-activations (N, 3) of nu, alpha and beta.

    Parameters
    ----------
    tie_nu_to_alpha : ``nu = 2 alpha`` (Meinert et al. 2023); the first pre-activation is then not used
    """
    alpha = 1 + MIN_ALPHA_ABOVE_ONE + softplus(raw[:, 1])
    nu = 2 * alpha if tie_nu_to_alpha else softplus(raw[:, 0]) + MIN_NU
    return NormalInverseGamma(nu, alpha, softplus(raw[:, 2]) + MIN_BETA)


def negative_log_likelihood(given: NormalInverseGamma, squared_error: Tensor, dimension: int = 3) -> Tensor:
    """Return the negative log likelihood (N,) of errors with squared lengths (N,), in the unit of beta.

    ``d/2 ln(pi / nu) - alpha ln omega + (alpha + d/2) ln(nu D + omega) + ln Gamma(alpha) - ln Gamma(alpha + d/2)``
    """
    half, omega = dimension / 2, given.omega
    return (
        half * (math.log(math.pi) - torch.log(given.nu))
        # alpha ln((nu D + omega) / omega), without the difference of two large numbers.
        + given.alpha * torch.log1p(given.nu * squared_error / omega)
        + half * torch.log(given.nu * squared_error + omega)
        + torch.lgamma(given.alpha)
        - torch.lgamma(given.alpha + half)
    )


def error_norm(squared_error: Tensor, unit: float = 1.0) -> Tensor:
    """Return the lengths (N,) of errors in units of ``unit``, with a gradient everywhere."""
    return torch.sqrt(squared_error / unit**2 + EPSILON**2)


def evidence_penalty(given: NormalInverseGamma, norm: Tensor) -> Tensor:
    """Return ``norm (2 nu + alpha)``, (N,): evidence costs where the prediction is wrong (Amini et al. 2020).

    The norm to its first power (:func:`error_norm`), not squared: squared, outliers are all that counts.
    """
    return norm * (2 * given.nu + given.alpha)


def flatness_penalty(raw: Tensor, norm: Tensor) -> Tensor:
    """Return ``-norm x`` (N,) with x the pre-activation of alpha: frees atoms stuck near alpha = 1.

    It is ``-norm ln(exp(alpha - 1) - 1)`` of Ye et al. 2024 (https://arxiv.org/abs/2401.01484), which overflows when
    it is written so. It pushes alpha up, without bound unless the evidence penalty weighs at least as much.
    """
    return -norm * raw[:, 1]
