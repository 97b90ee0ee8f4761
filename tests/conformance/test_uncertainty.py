"""Every registered uncertainty method passes the shipped suite."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.uncertainty import KNOWN_METHODS
from dubito.testing.structures import rattled
from dubito.testing.uncertainty_suite import UncertaintyMethodTests
from dubito.uncertainty.registry import METHODS


class TestEnsemble(UncertaintyMethodTests):
    method = "ensemble"

    def test_everything_made_of_the_members_is_on_one_scale(self, fitted: Any) -> None:
        given = fitted.predict(rattled(4, seed=11))
        spread = given.energy_ensemble.std(axis=1, ddof=1)
        np.testing.assert_allclose(spread, given.uncertainty["energy"], rtol=1e-9)
        np.testing.assert_allclose(given.energy_ensemble.mean(axis=1), given.energy, atol=1e-9)
        assert fitted.factor != 1.0


def test_every_method_is_tested_and_known_to_the_configuration() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_uncertainty*.py"))
    tested = set(re.findall(r'^    method(?:: .*)? = "(\w+)"', text, flags=re.MULTILINE))
    assert tested == set(METHODS.own) == set(KNOWN_METHODS)
