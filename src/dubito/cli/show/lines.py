"""A record as lines for a person."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dubito.cli.show.record import Record
from dubito.cli.show.tree import UNKNOWN, campaign_of

_SHORT = 12


def as_lines(record: Record, followed: Mapping[str, Any]) -> list[str]:
    """Return what is known of a file, one thing a line."""
    about = record.about
    lines = [str(record.file)]
    for name, text in (
        ("made by", f"{_job(about)}{_of_campaign(record)}"),
        ("when", _when(about)),
        ("where", _where(about)),
        ("code", _code(about)),
        ("packages", ", ".join(f"{k} {v}" for k, v in about.get("versions", {}).items() if k != "dubito")),
        ("settings", _settings(about, followed)),
        ("label", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in about.get("label", {}).items())),
        ("adopted", _adopted(about)),
        ("itself", _itself(record)),
    ):
        if text:
            lines.append(f"  {name:<9} {text}")
    inputs = followed["inputs"]
    if inputs:
        is_deep = inputs[-1]["step"] > 1
        lines += [
            f"  inputs{', and how many steps back' if is_deep else ''}",
            *(_input(one, is_deep) for one in inputs),
        ]
    elif not about.get("inputs") and "label" not in about:
        lines.append("  inputs    none but the configuration")
    return lines


def _job(about: Mapping[str, Any]) -> str:
    stage = " ".join(str(word) for word in (about.get("stage") or about.get("command"), about.get("part")) if word)
    iteration = about.get("iteration")
    return stage + ("" if iteration is None else f", iteration {iteration}")


def _of_campaign(record: Record) -> str:
    campaign = campaign_of(record)
    text = "" if campaign is None else f", campaign '{campaign}'"
    return text + (f" (this is a copy of {record.key})" if record.source == "copy" else "")


def _when(about: Mapping[str, Any]) -> str:
    moment, wall, cpu = about.get("time"), about.get("wall_s"), about.get("cpu_s")
    text = date(moment) if isinstance(moment, int | float) else str(moment or "")
    cost = [f"{value:.1f} s {what}" for value, what in ((wall, "wall time"), (cpu, "CPU time")) if value is not None]
    return ", ".join([*([text] if text else []), *cost])


def date(moment: float) -> str:
    """Return seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _where(about: Mapping[str, Any]) -> str:
    if not about.get("host"):
        return ""
    job = about.get("slurm_job")
    return f"{about['host']}, " + (f"Slurm job {job}" if job else "no Slurm job")


def _code(about: Mapping[str, Any]) -> str:
    code = about.get("code") or about.get("versions", {}).get("dubito")
    if not code:
        return ""
    more = "; files differed from that commit" if str(code).endswith(".changed") else ""
    stage = about.get("stage_version")
    return f"dubito {code}{more}" + (f"; version {stage} of the stage" if stage else "")


def _settings(about: Mapping[str, Any], followed: Mapping[str, Any]) -> str:
    words = []
    if about.get("config_hash"):
        where = followed["config_file"]
        words.append(f"configuration {about['config_hash']}" + (f" in {where}" if where else ""))
    if about.get("params_hash"):
        words.append(f"parameters {about['params_hash']}")
    if about.get("seed") is not None:
        words.append(f"seed {about['seed']}")
    return ", ".join(words)


def _adopted(about: Mapping[str, Any]) -> str:
    """Say where a label that was not made here comes from; who put it into the cache is said above."""
    origin = about.get("adopted_from")
    if not origin:
        return ""
    by = origin.get("created_by") or {}
    where = f" on {by['host']}" if by.get("host") else ""
    made = f"; that file was written by {_job(by)}{where}, {by.get('created', 'when is not known')}" if by else ""
    return f"not computed by this job but taken from {origin['file']} (sha256 {origin['sha256'][:_SHORT]}){made}"


def _itself(record: Record) -> str:
    short = record.sha256[:_SHORT]
    if record.is_same is None:
        return f"sha256 {short}; without its campaign's ledger nobody can say whether it was changed since"
    if record.is_same:
        return f"is what was written (sha256 {short})"
    outputs = record.about.get("outputs", {})
    was = f", was {outputs[record.key]['sha256'][:_SHORT]}" if record.key in outputs else ""
    text = f"changed since: sha256 is {short}{was}"
    if record.file.name != record.key.rpartition("/")[2]:
        return f"not what was written, and moved aside for that: sha256 is {short}{was}"
    if record.key.count("/") == 2 or "/report/" in record.key:
        text += " (each iteration and `dubito report` write this file anew)"
    return text


def _input(one: Mapping[str, Any], is_deep: bool) -> str:
    step = f"{one['step']:>3} " if is_deep else "    "
    maker = one.get("made_by")
    if maker is not None:
        by = f", by {_job(maker)}, {_when(maker) or 'some time'} on {maker['host'] or 'some machine'}"
    else:
        by = "" if one["state"] == UNKNOWN else ", not made by a job"
    return f"{step}{one['path']}  {one['sha256'][:_SHORT]}  {one['state']}{by}"
