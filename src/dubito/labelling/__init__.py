"""Labels: energies and forces from density functional theory, an analytic teacher or a labelled file."""

from dubito.labelling.base import Label, Labeller, LabellingFailure
from dubito.labelling.cache import LabelCache
from dubito.labelling.registry import make_labeller
from dubito.labelling.service import label_one, label_structures

__all__ = [
    "Label",
    "LabelCache",
    "Labeller",
    "LabellingFailure",
    "label_one",
    "label_structures",
    "make_labeller",
]
