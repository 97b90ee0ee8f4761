"""What no campaign can do, told before anything is spent: each in one paragraph, with what to type instead."""

from __future__ import annotations

from collections.abc import Iterator

from dubito.config.control_size import control_labels_needed
from dubito.config.label_noise import force_noise
from dubito.config.labelling import PyscfConfig
from dubito.config.schema import Config
from dubito.core.errors import ConfigError

NOISE_FACTOR = 3.0
"""An error counts as wrong beyond the tolerance; that says something of the model only well beyond the labels' own."""


def require_feasible(config: Config, n_initial: int | None = None) -> None:
    """Raise ConfigError, with a paragraph for each fault, when a campaign could not do what it is asked.

    Parameters
    ----------
    n_initial : structures the campaign starts from, where they were counted
    """
    faults = list(faults_of(config, n_initial))
    if faults:
        raise ConfigError(" ".join(faults))


def needs_count(config: Config) -> bool:
    """Say whether the budget can only be judged by counting the structures of files."""
    is_limited = config.campaign.max_iterations and config.campaign.max_labels is not None
    return bool(is_limited and config.data.initial.n_structures is None)


def faults_of(config: Config, n_initial: int | None = None) -> Iterator[str]:
    """Yield what a campaign with this configuration could never do; ``n_initial`` as in :func:`require_feasible`."""
    if config.campaign.max_iterations:
        yield from _tolerance(config)
        yield from _control(config)
        yield from _no_certificate(config)
        yield from _budget(config, n_initial)


def _tolerance(config: Config) -> Iterator[str]:
    """A tolerance within the noise of the labels."""
    labeller, tolerance = config.labelling.labeller, config.selection.force_tolerance_ev_per_angstrom
    noise = force_noise(labeller) if isinstance(labeller, PyscfConfig) else None
    if noise is not None and isinstance(labeller, PyscfConfig) and tolerance < NOISE_FACTOR * noise:
        yield (
            f"selection.force_tolerance_ev_per_angstrom is {tolerance:g}, but labels with grid_level "
            f"{labeller.grid_level} and conv_tol_hartree {labeller.conv_tol_hartree:g} are themselves uncertain by "
            f"{noise:.2g} eV/Å (rms of a force component, measured): no model could be found right. Expected at least "
            f"{NOISE_FACTOR * noise:.2g}; raise the tolerance, or make labels finer "
            "(labelling.labeller.grid_level: 4, conv_tol_hartree: 1.0e-9)."
        )


def _control(config: Config) -> Iterator[str]:
    """A control slice that can't certify the risk even if no error is found."""
    selection = config.selection
    best = control_labels_needed(selection.risk)
    if 0 < selection.n_control < best:
        usual = control_labels_needed(selection.risk, selection.min_accepted_fraction)
        yield (
            f"A control slice of {selection.n_control} labels (the larger of selection.min_control_labels and "
            f"control_fraction times n_select) can never certify a risk of {selection.risk:g}: even if none of them is "
            f"wrong, it takes {best}, and {usual} while {selection.min_accepted_fraction:.0%} of the pool are "
            f"accepted. Set selection.min_control_labels to {usual} or more, ask for a risk of "
            f"{1 / (selection.n_control + 1):.2g} or more, or do without a certificate (control_fraction: 0)."
        )


def _no_certificate(config: Config) -> Iterator[str]:
    """A window that closes with what a certificate accepts, where there will never be one."""
    selection = config.selection
    if not selection.heeds_certificate or selection.control_fraction:
        return
    what, instead = [], []
    if selection.skip_accepted:
        what.append("selection.skip_accepted")
        instead.append("set selection.skip_accepted to false")
    if selection.selector == "threshold_window" and not selection.min_score:
        what.append("the selector threshold_window without selection.min_score")
        instead.append("set selection.min_score to the score from which on candidates are worth a label")
    yield (
        f"What {' and '.join(what)} leaves out is what the certificate of the iteration before accepts, but with "
        "control_fraction: 0 there is never a certificate, so nothing would be left out. Set "
        f"selection.control_fraction above 0 (0.1), or {' and '.join(instead)}."
    )


def _budget(config: Config, n_initial: int | None) -> Iterator[str]:
    """A budget that does not reach beyond the first structures."""
    budget, selection = config.campaign.max_labels, config.selection
    initial, batch = n_initial or config.data.initial.n_structures or 0, selection.batch_size
    if budget is not None and budget < initial + batch:
        first = f"{initial} initial structures and " if initial else ""
        fewer = "take fewer of the files (data.initial.n_structures), " if config.data.initial.kind == "files" else ""
        yield (
            f"campaign.max_labels is {budget}, less than {first}one batch ({selection.n_select} selected and "
            f"{selection.n_control} control, {initial + batch} in all): nothing could be learnt from what is explored. "
            f"Set campaign.max_labels to {initial + batch} or more, lower selection.n_select or "
            f"selection.min_control_labels, {fewer}or only label what is there (campaign.max_iterations: 0)."
        )
