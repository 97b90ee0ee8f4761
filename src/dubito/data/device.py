"""Where the networks run: the processor, or a GPU when the job was given one."""

from __future__ import annotations

import torch

from dubito.core.errors import EnvironmentFault
from dubito.core.logs import get_logger

log = get_logger(__name__)


def choose_device(wanted: str, gpus: int = 0) -> str:
    """Return the torch device for a job.

    Parameters
    ----------
    wanted : ``cpu``; ``cuda``; or ``auto``: a GPU if the job has one and torch can use it, else the processor
    gpus : how many GPUs the job was given

    Raises
    ------
    EnvironmentFault
        When ``cuda`` is wanted and torch sees no GPU.
    """
    if wanted == "cpu" or (wanted == "auto" and gpus < 1):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "auto":
        log.warning(
            "the job was given %d GPU(s), but PyTorch can't use one (%s); it runs on the processor", gpus, _why()
        )
        return "cpu"
    raise EnvironmentFault(
        f"resources.device is 'cuda', but PyTorch sees no GPU here ({_why()}). On a cluster give the rule a partition "
        "with GPUs and `gpu: 1` in the profile; on one machine install the CUDA build of PyTorch and its driver; or "
        "set resources.device to 'auto' or 'cpu' and start again: finished work is kept."
    )


def _why() -> str:
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is a build without CUDA"
    return f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda}, but finds no usable device or driver"
