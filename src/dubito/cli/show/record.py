"""What is known of the making of one file: from its campaign's ledger, or from the file itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dubito.core.errors import DataError
from dubito.core.hashing import hash_file, hash_json
from dubito.core.ledger import NAME, SHA256, Ledger, read_ledger, said

# What Repair appends to the name of a file that is not what its job wrote.
_ASIDE = re.compile(r"\.damaged(\.\d+)?$")


@dataclass(frozen=True)
class Book:
    """A campaign's ledger and the folder that its paths begin in."""

    root: Path
    ledger: Ledger

    def look(self, path: str) -> str | None:
        """Return the hash a file has now; None where there is none."""
        try:
            return str(self.ledger.look(path, self.root)["sha256"])
        except OSError:
            return None


@dataclass(frozen=True)
class Record:
    """What is known of a file.

    Attributes
    ----------
    source : ``ledger``; ``copy`` (it has the content of a file in a ledger); ``file`` (it says so itself)
    key : its path in the ledger, or as given
    about : what the ledger or the file says, in the words of the ledger
    sha256, is_same : the hash it has now, and whether that is what was written (None: can't be known)
    """

    file: Path
    source: str
    key: str
    about: Mapping[str, Any]
    sha256: str
    is_same: bool | None
    book: Book | None


def find_record(file: Path) -> Record:
    """Return what is known of a file.

    Raises
    ------
    DataError
        When it does not exist, or nothing is known of it.
    """
    if not file.is_file():
        what = "is a folder; name a file in it" if file.is_dir() else "does not exist"
        raise DataError(f"{file} {what}, for example results/NAME/iter_000/dataset.h5.")
    sha256 = hash_file(file, SHA256)
    return _by_path(file, sha256) or _by_content(file, sha256) or _by_itself(file, sha256) or _unknown(file)


def open_book(file: Path) -> tuple[Book, str] | None:
    """Return the ledger of the campaign a file lies in, and the file's path in it."""
    absolute = Path(os.path.normpath(Path.cwd() / file))  # not resolved: `results` may be a link to another disk
    for folder in absolute.parents:
        if (folder / NAME).is_file():
            root = folder.parent.parent
            return Book(root, read_ledger(folder / NAME)), str(absolute.relative_to(root))
    return None


def _by_path(file: Path, sha256: str) -> Record | None:
    found = open_book(file)
    if found is None:
        return None
    book, path = found
    making = book.ledger.made.get(path) or book.ledger.made.get(path := _ASIDE.sub("", path))
    if making is None:
        return None
    return Record(file, "ledger", path, making.entry, sha256, sha256 == making.sha256, book)


def _by_content(file: Path, sha256: str) -> Record | None:
    """Look the content up in the ledgers of this folder: a copy tells as much as the file it was copied from."""
    for path in sorted(Path("results").glob(f"*/{NAME}")):
        book = Book(Path(), read_ledger(path))
        for key, making in book.ledger.made.items():
            if making.sha256 == sha256:
                return Record(file, "copy", key, making.entry, sha256, True, book)
    return None


def _by_itself(file: Path, sha256: str) -> Record | None:
    about = _label(file) if file.suffix == ".json" else _embedded(file)
    if about is None:
        return None
    is_same = about.pop("is_same", None)
    ledgers = sorted(Path("results").glob(f"{about.get('campaign') or ''}/{NAME}")) if about.get("campaign") else []
    book = Book(Path(), read_ledger(ledgers[0])) if ledgers else None
    return Record(file, "file", str(file), about, sha256, is_same, book)


def _label(file: Path) -> dict[str, Any] | None:
    """Return what an entry of the label cache says of its making."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        if entry["format"] != "dubito/label":
            return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    content, made_by = _mapping(entry.get("content")), said(_mapping(entry.get("made_by")))
    return {
        **made_by,
        "stage": made_by.get("stage") or "a labelling job",
        "label": {
            "kind": entry.get("kind"),
            "structure": entry.get("id"),
            "settings": file.parent.name,
            **{key: content[key] for key in ("method", "code_version", "reason", "attempts") if key in content},
        },
        **said({"wall_s": content.get("wall_time_s"), "cpu_s": content.get("cpu_time_s")}),
        "is_same": entry.get("check") == hash_json(content),
    }


def _embedded(file: Path) -> dict[str, Any] | None:
    """Return what a file of HDF5 or safetensors says of its making, in the words of the ledger."""
    found = next((words for words in _readers(file) if words), None)
    if found is None:
        return None
    hashes = found.pop("input_files", None) or found.pop("inputs", {})
    found["inputs"] = {path: {"sha256": sha256} for path, sha256 in hashes.items()}
    with suppress(ValueError):
        found["time"] = datetime.fromisoformat(str(found.pop("created", None))).timestamp()
    return found


def _readers(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as handle:
        magic = handle.read(8)
    if magic == b"\x89HDF\r\n\x1a\n":
        yield _from_hdf5(file)
    elif file.suffix == ".safetensors":
        yield _from_safetensors(file)


def _from_hdf5(file: Path) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            return _mapping(json.loads(opened.attrs.get("created_by", "{}")))
    except (OSError, ValueError, TypeError):
        return {}


def _from_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            about = json.loads((opened.metadata() or {}).get("dubito", "{}"))
    except (OSError, ValueError, SafetensorError):
        return {}
    return _mapping(_mapping(about).get("provenance"))


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _unknown(file: Path) -> Record:
    raise DataError(
        f"Nothing is known of the making of {file}: it is in no campaign's ledger (provenance.jsonl in its campaign's "
        "folder, or results/*/provenance.jsonl here), and it does not say itself, as .h5 and .safetensors files of "
        "dubito do. Files of campaigns that ran before dubito kept a ledger have no record; nor have files that were "
        "not made by a campaign, or were changed after they were copied. For structures run `dubito data show`."
    )
