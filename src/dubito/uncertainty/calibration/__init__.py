"""From raw doubt to standard deviations and bounds, fitted on structures unseen by the network.

``fit_calibration`` is what every method uses; the rest serves studies: ``fit_by_strata`` for strata other than
elements, ``fit_conformal`` and ``fit_conformal_quantile`` for bounds with a guarantee.
"""

from dubito.uncertainty.calibration.conformal import ConformalFactor, fit_conformal, structures_needed
from dubito.uncertainty.calibration.fitting import MIN_ATOMS
from dubito.uncertainty.calibration.isotonic import Isotonic, fit_isotonic
from dubito.uncertainty.calibration.quantile import ConformalQuantile, fit_conformal_quantile
from dubito.uncertainty.calibration.scale import FACTOR_RANGE, Scale, scale_factor
from dubito.uncertainty.calibration.standard import Calibration, fit_calibration
from dubito.uncertainty.calibration.strata import Stratified, fit_by_strata

__all__ = [
    "FACTOR_RANGE",
    "MIN_ATOMS",
    "Calibration",
    "ConformalFactor",
    "ConformalQuantile",
    "Isotonic",
    "Scale",
    "Stratified",
    "fit_by_strata",
    "fit_calibration",
    "fit_conformal",
    "fit_conformal_quantile",
    "fit_isotonic",
    "scale_factor",
    "structures_needed",
]
