"""Section ``resources``: what a campaign runs on; nothing here changes its results or reruns finished work."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dubito.config.base import Section


class ResourcesConfig(Section):
    """What the networks run on."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where networks are trained and evaluated: auto (a GPU where the job has one, else the "
        "processor), cpu, or cuda (a job without a GPU is then an error).",
    )
