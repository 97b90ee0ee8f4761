"""Who made a label, and whether a check of the gradient speaks for what they made.

A label is signed with its *maker*: the code that made it (:func:`fingerprint`), once a check has found that code sound,
or, before that, code and job together. A check of one label speaks for all labels of its maker and of the same program
version, for no others: a labeller that was mended between two jobs may go by the same name and version. Labels from
files of ``labelling.reuse_from`` have the file's content as their maker. Entries of the cache that are not signed are
those of dubito before it signed any; they count as one maker's for each job that made them, as far as they say so.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubito.config.labelling import LabelChecksConfig
from dubito.core.errors import DataError
from dubito.core.files import read_json, write_json
from dubito.core.hashing import hash_file, hash_json
from dubito.core.provenance import versions
from dubito.labelling.base import Label, Labeller
from dubito.labelling.cache import LabelCache

FOLDER = "checks/gradient"
"""Verdicts, within the folder of the cached labels, one level below them."""
SUSPECTS = "checks/gradient_suspects"
"""Structures whose label was refused alone: what is made of them next is looked at, whoever makes it."""
ASIDE = "refused"
"""Where refused labels lie, within the folder of the cached labels; nothing is deleted."""
PACKAGES = ("numpy", "scipy", "pyscf", "ase")


@dataclass(frozen=True)
class Maker:
    """Those whose labels stand or fall together: the maker's name and the version of the program it used."""

    name: str
    code_version: str
    file: str | None = None

    def path(self, cache: LabelCache) -> Path:
        """Return where the verdict on them is kept."""
        return cache.folder / FOLDER / f"{self.name}_{hash_json(self.code_version, 8)}.json"

    def is_vouched(self, cache: LabelCache, checks: LabelChecksConfig) -> bool:
        """Say whether a check found them sound, with a tolerance as strict."""
        return _is_strict(self.path(cache), checks)


def new_job() -> str:
    """Return a name for a labelling job; its children, if one crashes, are the same job."""
    return secrets.token_hex(4)


def fingerprint(labeller: Labeller) -> str:
    """Hash the code that makes the labels: of the labeller's class, its file (dubito's own: the whole package), and
    the versions of what it computes with."""
    parts: list[Any] = [{name: value for name, value in versions().items() if name in PACKAGES}]
    for each in type(labeller).__mro__[:-1]:
        code = {name: _code(value) for name, value in vars(each).items() if inspect.isfunction(value)}
        parts.append([each.__qualname__, code, _source(each)])
    return hash_json(parts)


def sign(cache: LabelCache, labeller: Labeller, checks: LabelChecksConfig, job: str) -> LabelCache:
    """Say who makes the labels that are put into the cache from now on; return the cache.

    Where no check is asked for, jobs are not told apart: one check later on speaks for all that this code made.
    """
    code = fingerprint(labeller)
    known = any(_is_strict(path, checks) for path in (cache.folder / FOLDER).glob(f"{code}_*.json"))
    cache.sign(code if known or checks.gradient == "none" else f"{code}-{job}")
    return cache


def vouch(cache: LabelCache, maker: Maker, labeller: Labeller, verdict: Mapping[str, Any]) -> None:
    """Keep that a maker was found sound. What this process makes from now on is then signed with its code alone."""
    write_json(maker.path(cache), {"maker": maker.name, "code_version": maker.code_version, **verdict})
    code = fingerprint(labeller)
    if maker.name in cache.makers and maker.name.startswith(f"{code}-"):
        vouch(cache, Maker(code, maker.code_version), labeller, verdict)
        cache.sign(code)


def maker_of(cache: LabelCache, structure_id: str, label: Label) -> Maker:
    """Return who made a cached label."""
    signature = cache.made_by(structure_id)
    file = signature.get("adopted_from", {}).get("file")
    return Maker(_name(signature), label.code_version, file)


def set_aside(cache: LabelCache, ids: Iterable[str]) -> Path:
    """Move entries of the cache out of the way; return where to."""
    folder = cache.folder / ASIDE
    folder.mkdir(parents=True, exist_ok=True)
    for name in ids:
        target, number = folder / f"{name}.json", 1
        while target.exists():
            number += 1
            target = folder / f"{name}.{number}.json"
        try:
            cache.path(name).rename(target)
        except FileNotFoundError:  # another job moved it
            continue
    return folder


def all_of(cache: LabelCache, maker: Maker) -> list[str]:
    """Return the ids of all labels of a maker."""
    found = []
    for path in sorted(cache.folder.glob("*.json")):
        label = None if path.name == "settings.json" else cache.get(path.stem)
        if isinstance(label, Label) and label.code_version == maker.code_version:
            found += [path.stem] if _name(cache.made_by(path.stem)) == maker.name else []
    return found


def suspect(cache: LabelCache, structure_id: str, why: str) -> None:
    """Remember a structure whose label was refused alone."""
    write_json(cache.folder / SUSPECTS / f"{structure_id}.json", {"structure": structure_id, "why": why})


def trust(cache: LabelCache, structure_id: str) -> None:
    """Forget that, once a label of the structure was found right."""
    with suppress(OSError):
        (cache.folder / SUSPECTS / f"{structure_id}.json").unlink(missing_ok=True)


def is_suspect(cache: LabelCache, structure_id: str) -> bool:
    """Say whether a label of this structure was refused alone."""
    return (cache.folder / SUSPECTS / f"{structure_id}.json").exists()


def _name(signature: Mapping[str, Any]) -> str:
    if signature.get("maker"):
        return str(signature["maker"])
    job = {key: value for key, value in signature.items() if key not in ("time", "reopened")}
    return f"old-{hash_json(job)}" if job else "old"


def _is_strict(path: Path, checks: LabelChecksConfig) -> bool:
    try:
        found = read_json(path) if path.exists() else {}
        return bool(found["tolerance_ev_per_angstrom"] <= checks.gradient_tolerance_ev_per_angstrom)
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return False


def _code(function: Any) -> str:
    """Hash what a function does: a method that was replaced at run time is another one."""
    code = function.__code__
    # The order of a frozen set changes from process to process.
    constants = [
        sorted(map(repr, each)) if isinstance(each, frozenset) else repr(each)
        for each in code.co_consts
        if not inspect.iscode(each)
    ]
    return hash_json([code.co_code.hex(), constants, code.co_names])


def _source(each: type) -> Any:
    try:
        path = Path(inspect.getfile(each))
    except (TypeError, OSError):
        return None
    if not path.is_file():
        return None
    files = sorted(path.parent.glob("*.py")) if each.__module__.startswith("dubito.") else [path]
    return {one.name: hash_file(one) for one in files}
