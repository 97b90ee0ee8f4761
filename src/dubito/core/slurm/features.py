"""Constraints on the features of nodes, as sbatch takes them: ``intel&ib``, ``[intel|amd]``, ``(a|b)&gpu*2``."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

_NAME = r"[\w.:+@/-]+"
# Anything sbatch could take; it judges the rest itself.
_ALLOWED = re.compile(rf"(?:{_NAME}|[&|,*()\[\]!])+")
_TOKEN = re.compile(rf"\*\d+|[&|,()\[\]]|{_NAME}")


def is_constraint(text: str) -> bool:
    """Say whether ``text`` can be a constraint (features joined by ``&`` and ``|``, in brackets, with counts)."""
    return bool(_ALLOWED.fullmatch(text)) and all(text.count(a) == text.count(b) for a, b in ("()", "[]"))


def names_in(constraint: str) -> list[str]:
    """Return the features a constraint names."""
    return [token for token in _TOKEN.findall(constraint) if re.fullmatch(_NAME, token)]


def satisfies(constraint: str, features: AbstractSet[str]) -> bool:
    """Say whether a node's features meet a constraint; what can't be read is left to Slurm (True).

    In ``[a*2&b*1]`` the counted features may be on different nodes: there one of them is enough.
    """
    tokens = [token for token in _TOKEN.findall(constraint) if not token.startswith("*")]
    counts_nodes = "[" in constraint and "*" in constraint
    try:
        answer, end = _any_of(tokens, 0, features, counts_nodes)
    except (IndexError, ValueError):
        return True
    return answer if end == len(tokens) else True


def _any_of(tokens: list[str], at: int, features: AbstractSet[str], counts_nodes: bool) -> tuple[bool, int]:
    answer, at = _all_of(tokens, at, features, counts_nodes)
    while at < len(tokens) and tokens[at] == "|":
        other, at = _all_of(tokens, at + 1, features, counts_nodes)
        answer = answer or other
    return answer, at


def _all_of(tokens: list[str], at: int, features: AbstractSet[str], counts_nodes: bool) -> tuple[bool, int]:
    answer, at = _one(tokens, at, features, counts_nodes)
    while at < len(tokens) and tokens[at] in "&,":
        other, at = _one(tokens, at + 1, features, counts_nodes)
        answer = (answer or other) if counts_nodes else (answer and other)
    return answer, at


def _one(tokens: list[str], at: int, features: AbstractSet[str], counts_nodes: bool) -> tuple[bool, int]:
    word = tokens[at]
    if word in "([":
        answer, at = _any_of(tokens, at + 1, features, counts_nodes)
        if tokens[at] not in ")]":
            raise ValueError(word)
        return answer, at + 1
    if word in "&|,)]":
        raise ValueError(word)
    return word in features, at + 1
