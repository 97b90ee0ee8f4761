"""Every registered uncertainty method passes the shipped suite."""

from dubito.config.uncertainty import KNOWN_METHODS
from dubito.testing.uncertainty_suite import UncertaintyMethodTests
from dubito.uncertainty.registry import METHODS


class TestEnsemble(UncertaintyMethodTests):
    method = "ensemble"


def test_every_method_is_tested_and_known_to_the_configuration() -> None:
    tested = {cls.method for cls in UncertaintyMethodTests.__subclasses__()}
    assert tested == set(METHODS) == set(KNOWN_METHODS)
