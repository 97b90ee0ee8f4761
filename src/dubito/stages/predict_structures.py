"""Predict the dataset, the profiles and the test set with the model of an iteration."""

from __future__ import annotations

from pathlib import Path

from dubito.core.errors import DataError
from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.uncertainty.registry import load_method

# Attributes the store writes itself.
_OWN = {"schema", "schema_version", "created_by", "content_hash"}


def run(
    *, ensemble: Path, uncertainty: Path, method: str, inputs: list[Path], outputs: list[Path], threads: int
) -> str:
    """Write each input's structures with the predictions of ``method`` to the output of the same rank.

    The first input is the dataset.

    Raises
    ------
    DataError
        When a structure of the dataset is also in one of the other inputs, which are to be unseen.
    """
    fitted = load_method(method, ensemble, uncertainty, threads=threads)
    _refuse_leaks(inputs)
    count = 0
    for source, target in zip(inputs, outputs, strict=True):
        structures = read_structures(source)
        attributes = {key: value for key, value in read_attributes(source).items() if key not in _OWN}
        predictions = {method: fitted.predict(structures).fields()}
        write_structures(target, structures, predictions=predictions, attributes=attributes)
        count += len(structures)
    return f"{count} structures of {len(inputs)} sets predicted"


def _refuse_leaks(inputs: list[Path]) -> None:
    learnt = set(read_structures(inputs[0]).ids)
    for path in inputs[1:]:
        both = learnt & set(read_structures(path).ids)
        if both:
            raise DataError(
                f"{len(both)} structures of {path} are also in {inputs[0]}, so errors on them would prove nothing. "
                "Take them out of evaluation.test_files or out of data.initial, and start again; labels are kept."
            )
