"""What a paused campaign tells its owner to do."""

from __future__ import annotations

RETRY = (
    "Mend the cause, in the settings or outside, then type `dubito retry` (and --config FILE, unless yours is "
    "config/config.yaml) and start the same snakemake command again: what failed is tried again, labels already made "
    "are kept"
)
