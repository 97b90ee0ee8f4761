"""What a campaign will do, before it does it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from dubito.config import Config
from dubito.config.uncertainty import AUTO, UncertaintyConfig
from dubito.core.errors import ModelError


def check_start(config: Config) -> str:
    """Make the initial structures and let the labeller say whether it takes them.

    Raises
    ------
    DubitoError
        When files can't be read, the labeller refuses a structure, or a sampler can do nothing with any.
    """
    from dubito.data.formula import formula_keys
    from dubito.data.molecules import equilibrium
    from dubito.data.store import read_structures
    from dubito.labelling.inversion import require_fit
    from dubito.labelling.registry import make_labeller
    from dubito.labelling.reuse import offer
    from dubito.sampling.registry import make_samplers
    from dubito.stages import prepare_structures

    with TemporaryDirectory() as folder:
        output = Path(folder, "candidates.h5")
        prepare_structures.run(output=output, data=config.data, seed=config.campaign.seed)
        structures = read_structures(output)
    labeller = make_labeller(config.labelling.labeller)
    labeller.check(structures)
    for profile in config.evaluation.profiles:
        require_fit(equilibrium(config.data), profile)
    for sampler in make_samplers(config.sampling):
        # Not asked of samplers: only some can do nothing with some molecules.
        getattr(sampler, "check_starts", lambda _: None)(structures)
    counts = Counter(formula_keys(structures)).most_common(3)
    kinds = ", ".join(f"{count} of {name}" for name, count in counts)
    lent = f"\n  {offer(files, labeller).said()}" if (files := config.labelling.reuse_from) else ""
    return f"valid; starts from {len(structures)} structures ({kinds}), which the labeller takes{lent}"


def forecast(config: Config) -> list[str]:
    """Return the largest number of labels the campaign can ask for, and what else it computes."""
    batch = config.selection.batch_size
    initial = config.data.initial.n_structures
    rounds = config.campaign.max_iterations
    start = f"{initial} initial" if initial is not None else "the initial"
    total = f"= {initial + rounds * batch}" if initial is not None else "in all"
    lines = [f"labels: {start} + {rounds} iterations x {batch} {total}, at most"]
    if config.campaign.max_labels is not None:
        lines.append(f"budget: stops at {config.campaign.max_labels} labels (campaign.max_labels)")
    for profile in config.evaluation.profiles:
        relaxed = ", and the relaxation of both its ends" if profile.relax else ""
        lines.append(f"profile {profile.name}: {profile.n_points} points, mirror images once{relaxed}")
    lines.append(
        f"ensemble: {config.training.n_members} members, {config.training.members_per_job} per job, "
        f"at most {config.training.max_epochs} epochs each iteration"
    )
    lines.append(f"exploring: {config.sampling.words}; jobs: {config.sampling.n_jobs}")
    lines.append(_doubt(config.uncertainty))
    lines.append(_network(config.model.kernel))
    return lines


def _doubt(config: UncertaintyConfig) -> str:
    """Say which uncertainty methods are fitted, and which one drives."""
    fitted = f"uncertainty: {', '.join(config.methods)}"
    if config.acquire_with == AUTO:
        return (
            f"{fitted}; {config.first_driver} drives until another proves better on new labels "
            f"({config.auto.min_structures} at least)"
        )
    return f"{fitted}; {config.acquire_with} drives"


def _network(kernel: str) -> str:
    """Say how the network will run, as far as this machine tells.

    Raises
    ------
    ModelError
        When the compiled network is demanded and there is no compiler.
    """
    from dubito.model.fused.compiler import CompilationError, compiler_version

    if kernel not in ("auto", "fused"):
        return f"network: in torch (model.kernel: {kernel}), many times slower than compiled"
    try:
        return f"network: compiled at its first use by {compiler_version()}"
    except CompilationError as error:
        if kernel == "fused":
            raise ModelError(
                f"model.kernel is 'fused', but {error}. Install one (for example gcc) where jobs run, or set "
                "model.kernel to auto."
            ) from error
        return f"network: in torch, many times slower than compiled, since {error}; install gcc where jobs run"
