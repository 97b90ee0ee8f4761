"""Predict the dataset, the profiles and the test set with the model of an iteration."""

from __future__ import annotations

from pathlib import Path

from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.uncertainty.registry import load_method

# Attributes the store writes itself.
_OWN = {"schema", "schema_version", "created_by", "content_hash"}


def run(
    *, ensemble: Path, uncertainty: Path, method: str, inputs: list[Path], outputs: list[Path], threads: int
) -> str:
    """Write each input's structures with the predictions of ``method`` to the output of the same rank."""
    fitted = load_method(method, ensemble, uncertainty, threads=threads)
    count = 0
    for source, target in zip(inputs, outputs, strict=True):
        structures = read_structures(source)
        attributes = {key: value for key, value in read_attributes(source).items() if key not in _OWN}
        predictions = {method: fitted.predict(structures).fields()}
        write_structures(target, structures, predictions=predictions, attributes=attributes)
        count += len(structures)
    return f"{count} structures of {len(inputs)} sets predicted"
