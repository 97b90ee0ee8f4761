"""What adaptive scoring spends and saves, in evaluations of one network with forces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluations:
    """The account of one pool.

    Attributes
    ----------
    n : candidates; n_full : those with the full score; n_members : of the ensemble
    n_known : training structures that the cheap score was fitted to, with one member
    """

    n: int
    n_full: int
    n_members: int
    n_known: int = 0

    @property
    def spent(self) -> int:
        """One member everywhere, the others where the full score was needed."""
        return self.n + self.n_known + self.n_full * (self.n_members - 1)

    @property
    def full(self) -> int:
        """All members everywhere."""
        return self.n * self.n_members

    @property
    def saved(self) -> int:
        """What was not evaluated; below 0 by the fit of the cheap score where nothing could be saved."""
        return self.full - self.spent

    @property
    def ratio(self) -> float:
        """Spent over full; 1 for an empty pool."""
        return self.spent / self.full if self.n else 1.0
