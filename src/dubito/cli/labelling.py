"""Label a file of structures outside a campaign."""

from __future__ import annotations

from pathlib import Path

from dubito.config import Config
from dubito.core.errors import LabelError
from dubito.data.formats import read_any, write_extxyz
from dubito.data.store import write_structures
from dubito.labelling.cache import LabelCache
from dubito.labelling.gradient_check import check_gradients
from dubito.labelling.registry import make_labeller
from dubito.labelling.reuse import adopt, offer
from dubito.labelling.sane import refuse_insane
from dubito.labelling.service import label_structures
from dubito.labelling.vouching import new_job, sign

_SHOWN = 5


def label_file(config: Config, path: Path, output: Path, threads: int) -> str:
    """Write the labelled structures of ``path``; return lines about them.

    Finished labels are kept in ``.dubito_labels`` beside ``output``: a killed command goes on where it was.

    Raises
    ------
    LabelError
        When not one structure could be labelled, or forces are not those of the energies.
    """
    labeller = make_labeller(config.labelling.labeller, threads=threads)
    checks = config.labelling.checks
    cache = sign(LabelCache(output.parent / ".dubito_labels", labeller.settings()), labeller, checks, new_job())
    structures = read_any(path)
    adopt(offer(config.labelling.reuse_from, labeller, structures.ids), structures, labeller, cache, checks)
    labelled, report = label_structures(structures, labeller, cache, retry_failed=True)
    wrong = check_gradients(labelled, labeller, cache, checks)
    labelled, report = refuse_insane(labelled, report, None, checks, wrong)
    failed = report["failed"]
    if not report["done"]:
        raise LabelError(
            f"None of the {len(labelled)} structures of {path} could be labelled; the first: {failed[0]['message']}"
        )
    if output.suffix == ".h5":
        write_structures(output, labelled)
    else:
        write_extxyz(output, labelled)
    lines = [f"{output}: {report['done']} labelled ({report['reused']} known before), {len(failed)} failed"]
    lines += [f"  failed {entry['id']}: {entry['reason']}: {entry['message']}" for entry in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  and {len(failed) - _SHOWN} more")
    return "\n".join(lines)
