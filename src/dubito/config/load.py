"""Read a configuration file and say clearly what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dubito.config.sampling import PLUGIN
from dubito.config.schema import Config
from dubito.core.errors import ConfigError, nearest
from dubito.core.hashing import hash_json


def load_config(path: Path) -> Config:
    """Read and validate a YAML configuration.

    Raises
    ------
    ConfigError
        With one line per fault: the key, what was found, what was expected, what to do.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Make one with `dubito new DIR`, or name another file.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name the YAML file in it.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}. Mend that line.") from error
    return parse_config(raw, str(path))


def parse_config(raw: Any, where: str = "the configuration") -> Config:
    """Validate a configuration given as a mapping (as YAML or Snakemake read it).

    Raises
    ------
    ConfigError
        With one line per fault.
    """
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} holds a {type(raw).__name__}; expected sections such as `campaign:` and `model:`.")
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        head = f"{where} has {len(lines)} fault{'s' if len(lines) > 1 else ''}:"
        raise ConfigError("\n  ".join([head, *lines])) from None


def config_hash(config: Config) -> str:
    """Hash the resolved configuration but for what it runs on."""
    return hash_json(config.model_dump(mode="json", exclude={"resources"}))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _explain(detail: ErrorDetails) -> str:
    """Turn one pydantic error into one line: key, found, expected, remedy."""
    location = [part for i, part in enumerate(detail["loc"]) if not _is_union_tag(i, detail)]
    key = ".".join(str(part) for part in location)
    kind, found, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(location, _keys_at(list(detail["loc"][:-1])))
    if kind == "missing":
        return f"{key}: is required here and is missing; add it."
    if kind == "value_error":
        message = str(context.get("error", detail["msg"])).removesuffix(".")
        return f"{key}: {message}." if key else f"{message}."
    if kind in ("union_tag_invalid", "union_tag_not_found", "literal_error"):
        return _wrong_choice(key, location, detail)
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    unit = _unit_hint(str(location[-1]) if location else "")
    return f"{key}: found {found!r} ({type(found).__name__}), expected {message}{unit}."


def _wrong_choice(key: str, location: list[Any], detail: ErrorDetails) -> str:
    """Explain a value that is not among its choices, with the nearest of them."""
    if detail["type"] == "union_tag_not_found":
        return f"{key}.kind: is required here and is missing; add one of: {', '.join(_kinds_at(location))}."
    context, found = detail.get("ctx", {}), detail.get("input")
    options = str(context.get("expected", context.get("expected_tags", "")))
    names = [name.strip(" '") for name in options.replace(" or ", ",").split(",")]
    if detail["type"] == "union_tag_invalid":
        key, found = f"{key}.kind", context.get("tag")
    guess = nearest(str(found), names)
    hint = f" Did you mean '{guess}'?" if guess else ""
    return f"{key}: found {found!r}, expected one of: {', '.join(names)}.{hint}"


def _is_union_tag(index: int, detail: ErrorDetails) -> bool:
    """Pydantic puts the tag of a discriminated union into the path; users never wrote it."""
    before, part = list(detail["loc"][:index]), detail["loc"][index]
    models = _models_at(before)
    return bool(before) and part in _tags(models) and not any(part in model.model_fields for model in models)


def _unit_hint(key: str) -> str:
    for ending, unit in (
        ("_ev_per_angstrom", "eV/Å"),
        ("_ev_per_atom", "eV per atom"),
        ("_hartree", "hartree"),
        ("_angstrom", "Å"),
        ("_per_fs", "1/fs"),
        ("_fs", "fs"),
        ("_K", "kelvin"),
    ):
        if key.endswith(ending):
            return f"; the unit is {unit}, write the number alone"
    return ""


def _unknown_key(location: list[Any], options: list[str]) -> str:
    name = str(location[-1])
    parent = ".".join(str(p) for p in location[:-1])
    where = f"{parent}.{name}" if parent else name
    # A forgotten or wrong unit is the commonest slip, so it goes before what merely looks alike.
    stem = name.rsplit("_", 1)[0]
    same_start = [o for o in options if o.startswith((f"{name}_", f"{stem}_"))]
    guess = nearest(name, same_start) or nearest(name, options)
    hint = f" Did you mean '{guess}'?" if guess else ""
    return f"{where}: is not a known key.{hint} Known here: {', '.join(sorted(options))}."


def _keys_at(location: list[Any]) -> list[str]:
    """Return the keys known at a place of the configuration."""
    return sorted({name for model in _models_at(location) for name in model.model_fields})


def _kinds_at(location: list[Any]) -> list[str]:
    """Return the kinds to choose from at a place of the configuration."""
    fields = [model.model_fields["kind"] for model in _models_at(location) if "kind" in model.model_fields]
    return [str(value) for field in fields for value in get_args(field.annotation)]


def _models_at(location: list[Any]) -> list[type[BaseModel]]:
    """Return what may stand at a place; the tag of a union, where it is in the path, says which it is."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        if isinstance(part, int):
            continue
        if len(models) > 1 and part in _tags(models):
            models = [model for model in models if part in _tags([model])]
            continue
        step: list[type[BaseModel]] = []
        for model in models:
            field = model.model_fields.get(str(part))
            if field is not None:
                step.extend(_models_in(field.annotation))
        models = step or models
    return models


def _tags(models: list[type[BaseModel]]) -> list[str]:
    """Return the tags of the unions that models belong to; a kind that is any text is a plug-in's."""
    fields = [model.model_fields["kind"] for model in models if "kind" in model.model_fields]
    return [str(tag) for field in fields for tag in get_args(field.annotation) or (PLUGIN,)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
