"""Random within a window of scores: neither what is trusted already nor what is beyond all sense.

The trust levels of DP-GEN (Zhang et al. 2020, https://doi.org/10.1016/j.cpc.2020.107206), with a lower end that is
calibrated instead of guessed. The window itself is cut by the batch, for all selectors alike
(:mod:`dubito.selection.window`); this one makes the batch close it below with what the certificate accepts.
"""

from __future__ import annotations

from typing import ClassVar

from dubito.selection.random_selector import RandomSelector


class ThresholdWindow(RandomSelector):
    """Any candidate of the acceptance window, with equal chance."""

    name: ClassVar[str] = "threshold_window"
    reason: ClassVar[str] = "in_window"
