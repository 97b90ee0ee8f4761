"""Predict the dataset, the profiles and the test set with the model of an iteration."""

from __future__ import annotations

from pathlib import Path

from dubito.core.errors import DataError
from dubito.data.store import read_attributes, read_ids
from dubito.stages._predicting import predict_files
from dubito.stages._together import load_together

# Attributes the store writes itself.
_OWN = {"schema", "schema_version", "created_by", "content_hash"}


def run(
    *,
    ensemble: Path,
    uncertainty: list[Path],
    methods: list[str],
    inputs: list[Path],
    outputs: list[Path],
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
) -> str:
    """Write each input's structures with the predictions of all fitted ``methods`` to the output of the same rank.

    The first input is the dataset; ``uncertainty`` holds the states of the methods in their order.

    Raises
    ------
    DataError
        When a structure of the dataset is also in one of the other inputs, which are to be unseen.
    """
    _refuse_leaks(inputs)
    fitted = load_together(methods, ensemble, uncertainty, threads=threads, device=device, gpus=gpus)
    count = 0
    for source, target in zip(inputs, outputs, strict=True):
        attributes = {key: value for key, value in read_attributes(source).items() if key not in _OWN}
        count += predict_files(lambda: fitted, [source], target, attributes)
    return f"{count} structures of {len(inputs)} sets predicted, doubted by {', '.join(fitted.names)}"


def _refuse_leaks(inputs: list[Path]) -> None:
    learnt = set(read_ids(inputs[0]))
    for path in inputs[1:]:
        both = learnt & set(read_ids(path))
        if both:
            raise DataError(
                f"{len(both)} structures of {path} are also in {inputs[0]}, so errors on them would prove nothing. "
                "Take them out of evaluation.test_files or out of data.initial, and start again; labels are kept."
            )
