"""Proper scores: the lower the better on average, and lowest for the true distribution.

Each returns one score per entry; their mean is what is compared. References: Gneiting and Raftery 2007
(https://doi.org/10.1198/016214506000001437) for proper scores, CRPS and the energy score; Jordan, Krüger and Lerch 2019
(https://doi.org/10.18637/jss.v090.i12) for the closed forms. An entry whose error is NaN scores NaN.

A standard deviation or scale of zero is refused: it has no density, and one such entry would decide the mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, erf, gammaln, ndtr, stdtr

from dubito.core.errors import DataError

Array = NDArray[Any]
LOG_2PI = float(np.log(2 * np.pi))


def gaussian_nll(error: ArrayLike, uncertainty: ArrayLike) -> Array:
    """Return the negative log density of errors under ``N(0, sigma^2)``, in nats, any shape.

    Raises
    ------
    DataError
        When shapes differ or a standard deviation is not positive and finite; so for all functions here.
    """
    e, s = _pair(error, uncertainty)
    out: Array = 0.5 * (LOG_2PI + (e / s) ** 2) + np.log(s)
    return out


def isotropic_gaussian_nll(error: ArrayLike, uncertainty: ArrayLike) -> Array:
    """Return the negative log density of error vectors under ``N(0, sigma^2 I)``, (N,) nats.

    Parameters
    ----------
    error : (N, d)
    uncertainty : (N,) standard deviation of one component
    """
    squared, s, d = _vectors(error, uncertainty)
    out: Array = 0.5 * (d * LOG_2PI + squared / s**2) + d * np.log(s)
    return out


def student_nll(error: ArrayLike, scale: ArrayLike, df: ArrayLike) -> Array:
    """Return the negative log density of errors under Student's t, in nats, any shape.

    Parameters
    ----------
    error, scale : same shape; the scale is the standard deviation times ``sqrt((df - 2) / df)``
    df : degrees of freedom, one number or the shape of the errors
    """
    e, s = _pair(error, scale)
    return _student_nll(e**2, s, _degrees(df, e.shape), 1)


def multivariate_student_nll(error: ArrayLike, scale: ArrayLike, df: ArrayLike) -> Array:
    """Return the negative log density of error vectors under the isotropic multivariate Student's t, (N,) nats.

    ``Gamma((df + d)/2) / [Gamma(df/2) (df pi scale^2)^(d/2)] (1 + |e|^2 / (df scale^2))^(-(df + d)/2)``
    (Kotz and Nadarajah 2004, https://doi.org/10.1017/CBO9780511550683). The components share their scale, so
    the vector is not a product of ``d`` univariate t.

    Parameters
    ----------
    error : (N, d)
    scale : (N,)
    df : degrees of freedom, one number or (N,)
    """
    squared, s, d = _vectors(error, scale)
    return _student_nll(squared, s, _degrees(df, squared.shape), d)


def gaussian_crps(error: ArrayLike, uncertainty: ArrayLike) -> Array:
    """Return the continuous ranked probability score of ``N(0, sigma^2)``, in the unit of the error, any shape.

    ``sigma [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)]``.
    """
    e, s = _pair(error, uncertainty)
    z = e / s
    density = np.exp(-0.5 * z**2 - 0.5 * LOG_2PI)
    out: Array = s * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return out


def student_crps(error: ArrayLike, scale: ArrayLike, df: ArrayLike) -> Array:
    """Return the continuous ranked probability score of Student's t, in the unit of the error, any shape.

    ``scale [z (2 F(z) - 1) + 2 f(z) (df + z^2)/(df - 1) - 2 sqrt(df)/(df - 1) B(1/2, df - 1/2)/B(1/2, df/2)^2]``.

    Raises
    ------
    DataError
        Also when ``df`` is not above 1: the score is then infinite.
    """
    e, s = _pair(error, scale)
    nu = _degrees(df, e.shape, above=1.0)
    z = e / s
    # The density of the standard t times (df + z^2), as an exponent: z may be large and df small.
    log_density = -(0.5 * np.log(nu) + betaln(0.5, nu / 2)) - (nu + 1) / 2 * np.log1p(z**2 / nu)
    spread = 2 * np.exp(log_density) * (nu + z**2) / (nu - 1)
    constant = 2 * np.sqrt(nu) / (nu - 1) * np.exp(betaln(0.5, nu - 0.5) - 2 * betaln(0.5, nu / 2))
    out: Array = s * (z * (2 * stdtr(nu, z) - 1) + spread - constant)
    return out


def energy_score(samples: ArrayLike, observed: ArrayLike, *, fair: bool = False) -> Array:
    """Return the energy score of vectors, ``E|X - y| - E|X - X'| / 2``, (N,) in their unit.

    The CRPS of vectors, invariant under rotation. The second mean runs over all pairs; ``fair`` leaves out that
    of a sample with itself (Ferro 2014, https://doi.org/10.1002/qj.2270), which scores the distribution that the
    samples come from rather than the samples, so that ensembles of different size can be compared.

    Parameters
    ----------
    samples : (M, N, d), e.g. the members' forces
    observed : (N, d)

    Raises
    ------
    DataError
        When shapes do not fit, or with fewer samples than needed (1, or 2 if ``fair``).
    """
    x, y = np.asarray(samples, "f8"), np.asarray(observed, "f8")
    if x.ndim != 3 or y.shape != x.shape[1:]:
        raise DataError(f"Samples of shape {x.shape} don't fit observed vectors {y.shape}; expected (M, N, d), (N, d).")
    m = len(x)
    if m < 1 + fair:
        raise DataError(f"The {'fair ' if fair else ''}energy score needs {1 + fair} or more samples, found {m}.")
    distance = np.mean(_length(x - y), axis=0)
    pairs = np.zeros(len(y))
    for k in range(m - 1):  # one row of pairs at a time, to hold M rather than M^2 vectors per atom
        pairs += np.sum(_length(x[k + 1 :] - x[k]), axis=0)
    out: Array = distance - pairs / (m * (m - 1) if fair else m**2)
    return out


def isotropic_energy_score(error: ArrayLike, uncertainty: ArrayLike) -> Array:
    """Return the energy score of ``N(0, sigma^2 I)`` in three dimensions, (N,) in the unit of the error.

    With ``r = |e| / sigma``: ``E|X - y| = sigma [sqrt(2/pi) exp(-r^2/2) + (r + 1/r) erf(r / sqrt 2)]``, the mean of
    the noncentral chi distribution of 3 degrees of freedom, and ``E|X - X'| = 4 sigma / sqrt(pi)``.

    Parameters
    ----------
    error : (N, 3)
    uncertainty : (N,) standard deviation of one component
    """
    squared, s, d = _vectors(error, uncertainty)
    if d != 3:
        raise DataError(f"The closed form of the energy score is that of 3 components, found {d}; sample instead.")
    r = np.sqrt(squared) / s
    # erf(r / sqrt 2) / r, with its limit where r is zero.
    ratio = np.full_like(r, np.sqrt(2 / np.pi))
    np.divide(erf(r / np.sqrt(2)), r, out=ratio, where=~(r <= 1e-8))
    mean = np.sqrt(2 / np.pi) * np.exp(-(r**2) / 2) + r * erf(r / np.sqrt(2)) + ratio
    out: Array = s * (mean - 2 / np.sqrt(np.pi))
    return out


def _student_nll(squared: Array, scale: Array, nu: Array, d: int) -> Array:
    # The difference of two log gammas, through log beta: it stays exact where df is large and t nearly Gaussian.
    gammas = gammaln(d / 2) - betaln(nu / 2, d / 2)
    out: Array = 0.5 * d * np.log(np.pi * nu) + d * np.log(scale) - gammas
    out = out + (nu + d) / 2 * np.log1p(squared / (nu * scale**2))
    return out


def _length(vectors: Array) -> Array:
    out: Array = np.sqrt(np.sum(vectors**2, axis=-1))
    return out


def _vectors(error: ArrayLike, uncertainty: ArrayLike) -> tuple[Array, Array, int]:
    """Return squared lengths (N,), standard deviations (N,) and the number of components."""
    e, s = np.asarray(error, "f8"), np.asarray(uncertainty, "f8")
    if e.ndim != 2 or s.shape != e.shape[:1]:
        raise DataError(
            f"Error vectors of shape {e.shape} don't fit uncertainties {s.shape}; expected (N, d) and (N,)."
        )
    _refuse_zero(s)
    return np.sum(e**2, axis=1), s, e.shape[1]


def _pair(error: ArrayLike, uncertainty: ArrayLike) -> tuple[Array, Array]:
    e, s = np.asarray(error, "f8"), np.asarray(uncertainty, "f8")
    if e.shape != s.shape:
        raise DataError(f"Errors have shape {e.shape} but uncertainties {s.shape}; they must be equal.")
    _refuse_zero(s)
    return e, s


def _refuse_zero(s: Array) -> None:
    bad = ~((s > 0) & np.isfinite(s))
    if np.any(bad):
        raise DataError(
            f"{int(bad.sum())} of {s.size} uncertainties are zero, negative or not finite (the first: "
            f"{float(s[bad][0]):g}), which has no density to score; calibrate, or set a floor that is stated."
        )


def _degrees(df: ArrayLike, shape: tuple[int, ...], above: float = 0.0) -> Array:
    nu = np.asarray(df, "f8")
    if not np.all((nu > above) & np.isfinite(nu)):
        raise DataError(f"Degrees of freedom must be finite and above {above:g} here; clamp them or use a Gaussian.")
    if nu.ndim and nu.shape != shape:
        raise DataError(f"Degrees of freedom have shape {nu.shape} but errors {shape}; give one number or as many.")
    return nu
