"""Who looks on while a batch is labelled: is told before and after each structure, and may forbid one."""

from __future__ import annotations

from dubito.labelling.cache import Failure


class Watch:
    """Looks on and does nothing; subclass it."""

    def before(self, structure_id: str) -> Failure | None:
        """Return why a structure must not be tried, None to let it be labelled; raise to stop between structures."""
        return None

    def after(self, structure_id: str, *, failed: bool, reused: bool) -> bool:
        """Hear what came of a structure; return whether it counts as known before this job."""
        return reused
