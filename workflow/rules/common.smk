# Configuration, guards and input functions shared by all rules.
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import IncompleteCheckpointException

from dubito.config.uncertainty import AUTO, UncertaintyConfig
from dubito.core.errors import DubitoError
from dubito.core.progress import announce
from dubito.workflow import work
from dubito.workflow.campaign import (
    failed_line,
    finished_line,
    forget_unfitted,
    freeze_config,
    is_paused,
    labels_spent,
    load_campaign,
    require_plans,
    resume_paused,
)
from dubito.workflow.driver import claim_campaign, is_read_only, refuse_live_jobs
from dubito.workflow.escalation import Requests, SnakemakePlace
from dubito.workflow.ledger import hand_over_code_version
from dubito.workflow.lacking import (
    heed_changed_settings,
    tell_what_stays_away,
    warn_of_lost_ledger,
    why_unfinished,
)
from dubito.workflow.recorded import (
    exploring_settings,
    labeller_settings,
    reported_settings,
    section_settings,
)
from dubito.workflow.repair import repair_campaign
from dubito.workflow.resources import (
    FIXED_S,
    gpus_of_rule,
    labelling_device,
    most_labels,
    network_device,
    threads_of,
)
from dubito.workflow.schema import claim_schema
from dubito.workflow.slurm_guard import guard_slurm
from dubito.workflow.slurm_signal import pass_signals_on
from dubito.workflow.slurm_site import require_rules, require_values
from dubito.workflow.submissions import Submissions
from dubito.workflow.terminal import hush_snakemake
from dubito.workflow.versions import stage_version

ONLY_LOOKS = workflow.output_settings.dryrun or is_read_only(sys.argv[1:])
TERMINAL = hush_snakemake(workflow, is_read_only=ONLY_LOOKS)
SUBMISSIONS = Submissions()
# The user's faults are told in one paragraph, without a traceback through Snakemake.
try:
    CONFIG = load_campaign(
        config,
        where=", ".join(map(str, workflow.configfiles)),
        is_driver=workflow.is_main_process,
    )
    if workflow.is_main_process and not is_read_only(sys.argv[1:]):
        warn_of_lost_ledger(CONFIG.campaign.name)
    if workflow.is_main_process and not ONLY_LOOKS:
        claim_campaign(CONFIG.campaign.name)
        claim_schema(CONFIG.campaign.name)
        repair_campaign(CONFIG.campaign.name)
        heed_changed_settings(CONFIG)
        require_plans(CONFIG.campaign.name)
        forget_unfitted(CONFIG)
        guard_slurm(CONFIG.campaign.name, SUBMISSIONS)
    if workflow.is_main_process:
        require_values(workflow)
    else:
        pass_signals_on()
except DubitoError as error:
    announce(f"dubito: {error}")
    sys.exit(error.exit_code)

if workflow.is_main_process:
    TERMINAL.had_nothing_to_do = lambda: end_campaign()  # defined below
SEED = CONFIG.campaign.seed
METHODS = CONFIG.uncertainty.methods
FIRST_DRIVER = CONFIG.uncertainty.first_driver
# Whether the method that drives is chosen anew after each batch.
IS_AUTO = CONFIG.uncertainty.acquire_with == AUTO
PROFILES = [profile.name for profile in CONFIG.evaluation.profiles]
TEST = ["test"] if CONFIG.evaluation.test_files else []
PREDICTED = ["dataset", *(f"profile_{name}" for name in PROFILES), *TEST]


wildcard_constraints:
    campaign=CONFIG.campaign.name,
    iteration=r"\d{3}",
    job=r"\d+",
    shard=r"\d\d\d+",  # Snakemake does not take \d{3,}
    group=r"\d+",
    # Plug-ins are called as they like.
    method="|".join(map(re.escape, METHODS)),
    profile=r"[a-z][a-z0-9_]*",


def start_campaign():
    """Before the first job: freeze the configuration; on a cluster look for jobs of a killed driver."""
    if not workflow.local_exec:
        TERMINAL.is_open = True
        # Other schedulers than Slurm are not asked: there each job waits for its own lock.
        used = type(workflow.executor_settings).__module__
        try:
            if "executor_plugin_slurm" in used:
                refuse_live_jobs(CONFIG.campaign.name)
        except DubitoError as error:
            announce(f"dubito: {error}")
            sys.exit(error.exit_code)
    freeze_config(CONFIG)
    hand_over_code_version()
    resume_paused(CONFIG.campaign.name)
    TERMINAL.is_paused = lambda: is_paused(CONFIG.campaign.name)


def end_campaign():
    """After the last job, or where there was none: the campaign is at its end, or the exit code says that it is not."""
    asked = workflow.dag_settings
    is_partial = asked.target_jobs or asked.until or asked.omit_from
    if ONLY_LOOKS or is_partial or set(asked.targets) - {"all"}:
        return
    unfinished = why_unfinished(CONFIG.campaign.name)
    if unfinished:
        announce(f"dubito: {unfinished}")
        sys.exit(1)
    tell_what_stays_away(CONFIG.campaign.name, sys.argv[1:])


def remember_batches():
    """Tell Snakemake which batches were selected, and which drivers chosen, by an earlier run.

    Resuming, it looks only one checkpoint ahead: jobs of a later iteration would be started with the placeholder
    of their shards, because the finished `select_batch` they wait for never runs again. A batch that is selected
    anew is looked up again all the same, since its dependents take the manifest as input.
    """
    for manifest in Path("results", CONFIG.campaign.name).glob("iter_*/selection.json"):
        batch = [
            manifest.with_name(name)
            for name in ("selected.h5", "selection.json", "rejected.csv")
        ]
        if all(path.exists() for path in batch):
            checkpoints.created_output.update(map(str, batch))
    # What a driver decides stands in the params and the inputs of its rules. One that is chosen anew is looked up
    # again because its iteration's decision waits for it, and the next iteration for that.
    for chosen in Path("results", CONFIG.campaign.name).glob("iter_*/driver.json"):
        checkpoints.created_output.add(str(chosen))


# --- settings ---------------------------------------------------------------------------------------


def section(name, *keys):
    """Return a section of the configuration, or some keys of it: what a rule is rerun for when it changes."""
    values = section_settings(CONFIG, name)
    return {key: values[key] for key in keys if key in values} if keys else values


def section_without(name, *keys):
    """Return a section of the configuration without the keys whose change reruns nothing."""
    return {
        key: value
        for key, value in section_settings(CONFIG, name).items()
        if key not in keys
    }


# What the scores of the pool follow from besides model and method: nothing where all members are asked about all.
ADAPTIVE_SCORING = (
    {
        "scoring": section("scoring"),
        "selection": section(
            "selection",
            "selector",
            "n_select",
            "skip_top_fraction",
            "min_score",
            "max_score",
            "skip_accepted",
            "force_tolerance_ev_per_angstrom",
        ),
        "seed": SEED,
    }
    if CONFIG.scoring.adaptive
    else {}
)


def untracked(value):
    """Return a param whose change reruns nothing: Snakemake takes params made from the input for derived."""

    def get(wildcards, input):
        return value

    return get


# Where networks run changes no result that matters, and reruns nothing.
DEVICE = untracked(network_device(CONFIG))
# The same of labels: both devices make interchangeable ones.
LABELLER = labeller_settings(CONFIG)
REPORTED = reported_settings(CONFIG)


def remaining_labels(wildcards, input):
    """Return how many labels the budget still allows, or None: no limit (raising it reruns nothing)."""
    budget = CONFIG.campaign.max_labels
    if budget is None:
        return None
    return max(0, budget - labels_spent(wildcards.campaign, int(wildcards.iteration)))


def method_settings(wildcards):
    """Return what one uncertainty method is fitted with, so that its own settings refit it alone."""
    values = config["uncertainty"]
    return {
        key: values[key] for key in ("calibration", wildcards.method) if key in values
    }


def profile_settings(wildcards):
    """Return the settings of one profile."""
    return next(
        p for p in config["evaluation"]["profiles"] if p["name"] == wildcards.profile
    )


def members_of_group(wildcards):
    """Return the members that one training job trains together."""
    size = CONFIG.training.members_per_job
    first = int(wildcards.group) * size
    return list(range(first, min(first + size, CONFIG.training.n_members)))


def groups():
    """Return the numbers of the training jobs."""
    return range(-(-CONFIG.training.n_members // CONFIG.training.members_per_job))


# --- resources --------------------------------------------------------------------------------------


# Doubled for what killed a job before; as functions of the work in dubito.workflow.work.
REQUESTS = Requests(
    Path("results", CONFIG.campaign.name),
    SnakemakePlace(workflow, only_looks=ONLY_LOOKS),
    SUBMISSIONS,
)


def settle_requests():
    """Look at what the profile sets for rules, when all rules are known."""
    if workflow.is_main_process:
        try:
            require_rules(workflow)
        except DubitoError as error:
            announce(f"dubito: {error}")
            sys.exit(error.exit_code)
    REQUESTS.adopt(workflow)


def labels_by(wildcards):
    """Return about how many labels there are in an iteration: those selected so far, or of the whole campaign."""
    spent = labels_spent(wildcards.campaign, int(wildcards.iteration) + 1)
    return spent or max(1, most_labels(CONFIG))


def training_minutes(wildcards, input):
    return work.training_minutes(CONFIG, labels_by(wildcards))


def training_mb(wildcards, input):
    return work.training_mb(CONFIG, labels_by(wildcards))


def fitting_minutes(wildcards, input):
    return work.fitting_minutes(CONFIG, labels_by(wildcards))


def selecting_mb(wildcards, input):
    return work.selecting_mb(Path(input.candidates))


def fitting_mb(wildcards, input):
    return work.fitting_mb(labels_by(wildcards))


def labelling_minutes(wildcards, input):
    return work.batch_minutes(CONFIG, Path(input.manifest), Path(input.selected))


def labelling_mb(wildcards, input):
    return work.batch_mb(CONFIG, Path(input.selected))


def gpus_for(device):
    """Return a function for the GPUs of a rule; a profile may set another number (`set-resources`, key `gpu`)."""

    def get(wildcards):
        return gpus_of_rule(
            device,
            is_driver=workflow.is_main_process,
            runs_here=workflow.local_exec,
        )

    return get


# Of a rule with network, and of one that labels.
gpus = gpus_for(network_device(CONFIG))
label_gpus = gpus_for(labelling_device(CONFIG))


def label_places(wildcards, input):
    """Return how many labelling jobs can run side by side."""
    if workflow.local_exec:
        # Not workflow.cores, which raises where none are given: --summary, --rulegraph and the like.
        cores = workflow.resource_settings.cores or 1
        return max(1, cores // threads_of("label_structures", CONFIG))
    return workflow.nodes or 1


def label_fixed_s(wildcards, input):
    """Return the seconds of a labelling job before its first label."""
    return FIXED_S["local" if workflow.local_exec else "cluster"]


# --- files ------------------------------------------------------------------------------------------


def of_iteration(wildcards, k, name):
    """Return a file of iteration ``k``."""
    return f"results/{wildcards.campaign}/iter_{int(k):03d}/{name}"


def of_previous(name):
    """Return an input function for a file of the iteration before."""

    def get(wildcards):
        return of_iteration(wildcards, int(wildcards.iteration) - 1, name)

    return get


def of_previous_if_any(name, wanted=True):
    """Return an input function for a file of the iteration before; none in iteration 0 or if not wanted."""

    def get(wildcards):
        is_first = int(wildcards.iteration) == 0
        return [] if is_first or not wanted else of_previous(name)(wildcards)

    return get


def driver(wildcards):
    """Return the uncertainty method that drives an iteration; with `auto` it follows from the batches before."""
    k = int(wildcards.iteration)
    if not IS_AUTO or k == 0:
        return FIRST_DRIVER
    before = dict(campaign=wildcards.campaign, iteration=f"{k - 1:03d}")
    with checkpoints.choose_driver.get(**before).output.output.open() as handle:
        return json.load(handle)["method"]


def driver_if_any(wildcards, input):
    """Return the method that drives an iteration; none drives the first.

    Its change alone reruns nothing: another driver scores the pool into another file.
    """
    return None if int(wildcards.iteration) == 0 else driver(wildcards)


def role(wildcards, input):
    """Return what a method is fitted for; that reruns nothing, see `forget_unfitted`."""
    if wildcards.method == CONFIG.uncertainty.acquire_with:
        return "driver"
    may_drive = IS_AUTO and wildcards.method in CONFIG.uncertainty.candidates
    return "candidate" if may_drive else "spectator"


def driver_state(wildcards):
    """Return the fitted method that drives an iteration."""
    return of_previous(f"uncertainty/{driver(wildcards)}.safetensors")(wildcards)


def driver_settings(wildcards):
    """Return what the driver is fitted with, its name if those are the defaults (which older campaigns recorded)."""
    name, defaults = driver(wildcards), UncertaintyConfig().model_dump(mode="json")
    values = method_settings(SimpleNamespace(method=name))
    return (
        name
        if all(defaults.get(key) == value for key, value in values.items())
        else values
    )


def sampler_settings(wildcards):
    """Return the settings of the sampler that an exploring job runs: those of another rerun others."""
    return exploring_settings(CONFIG, int(wildcards.job))


def driver_file(wildcards):
    """Return what says which method drives the next iteration; nothing where the configuration names it."""
    return (
        [of_iteration(wildcards, wildcards.iteration, "driver.json")] if IS_AUTO else []
    )


def batches_to_judge(wildcards):
    """Return the latest two batches as all methods saw them before they were labelled."""
    k = int(wildcards.iteration)
    return [
        of_iteration(wildcards, j, "predictions/batch.h5") for j in (k - 1, k) if j > 0
    ]


def fits_of_candidates(wildcards):
    """Return what the fits say of the methods that may drive next."""
    k, names = wildcards.iteration, CONFIG.uncertainty.candidates
    return [of_iteration(wildcards, k, f"uncertainty/{name}.json") for name in names]


def judged_batch(wildcards):
    """Return the batch as all methods saw it before it was labelled.

    A single method said it when it selected; but not with all members, where scoring was adaptive.
    """
    k = int(wildcards.iteration)
    wanted = len(METHODS) > 1 or CONFIG.scoring.adaptive
    return (
        [of_iteration(wildcards, k, "predictions/batch.h5")] if k > 0 and wanted else []
    )


def previous_states(wildcards):
    """Return the fitted methods of the iteration before."""
    k = int(wildcards.iteration) - 1
    names = [f"uncertainty/{method}.safetensors" for method in METHODS]
    return [of_iteration(wildcards, k, name) for name in names]


def previous_fits(wildcards):
    """Return what the fits of the methods that judged this batch cost."""
    k = int(wildcards.iteration)
    names = [f"uncertainty/{method}.json" for method in METHODS if k > 0]
    return [of_iteration(wildcards, k - 1, name) for name in names]


def initial_files(wildcards):
    """Return the structure files the campaign starts from."""
    initial = CONFIG.data.initial
    return (
        initial.files
        if initial.kind == "files"
        else [initial.file] if initial.file else []
    )


def labelled_files(wildcards):
    """Return the files that the labeller looks labels up in; their content is part of its settings."""
    labeller = CONFIG.labelling.labeller
    return labeller.files if labeller.kind == "dataset" else []


def candidates(wildcards):
    """Return what to select from: the initial structures, later the pool as the driver scored it."""
    is_first = int(wildcards.iteration) == 0
    name = "candidates.h5" if is_first else f"scores/{driver(wildcards)}.h5"
    return of_iteration(wildcards, wildcards.iteration, name)


def pool(wildcards):
    """Return the candidates of all exploring jobs."""
    jobs = range(CONFIG.sampling.n_jobs)
    return [
        of_iteration(wildcards, wildcards.iteration, f"pool/job_{job}.h5")
        for job in jobs
    ]


def shards(ending):
    """Return an input function for the shards of an iteration, known once its batch is selected."""

    def get(wildcards):
        with checkpoints.select_batch.get(**wildcards).output.manifest.open() as handle:
            count = json.load(handle)["n_shards"]
        names = [f"labels/shard_{shard:03d}.{ending}" for shard in range(count)]
        return [of_iteration(wildcards, wildcards.iteration, name) for name in names]

    return get


def shard_reports_so_far(wildcards):
    """Return the reports of all shards of this and all earlier iterations."""
    found = []
    for k in range(int(wildcards.iteration) + 1):
        where = SimpleNamespace(campaign=wildcards.campaign, iteration=f"{k:03d}")
        made = checkpoints.select_batch.get(**vars(where))
        with made.output.manifest.open() as handle:
            count = json.load(handle)["n_shards"]
        names = [f"labels/shard_{shard:03d}.json" for shard in range(count)]
        found += [of_iteration(where, k, name) for name in names]
    return found


def shard_size(wildcards, input):
    """Return the structures per shard of this batch, spread evenly over the shards its manifest promises.

    It comes from the manifest, so that a later change of the configuration leaves finished batches alone.
    """
    manifest = json.loads(Path(input.manifest).read_text())
    return max(1, -(-manifest["n_selected"] // max(1, manifest["n_shards"])))


def members(name):
    """Return an input function for the files of all training groups."""

    def get(wildcards):
        return [
            of_iteration(wildcards, wildcards.iteration, f"members/{name.format(g)}")
            for g in groups()
        ]

    return get


def predicted(wildcards):
    """Return the labelled structures that each iteration's model predicts, in the order of PREDICTED."""
    folder = f"results/{wildcards.campaign}/reference"
    fixed = [f"{folder}/{name}.h5" for name in PREDICTED[1:]]
    return [of_iteration(wildcards, wildcards.iteration, "dataset.h5"), *fixed]


def predicted_profiles(wildcards):
    """Return the predicted profiles of an iteration."""
    return [
        of_iteration(wildcards, wildcards.iteration, f"predictions/profile_{p}.h5")
        for p in PROFILES
    ]


def predicted_test(wildcards):
    """Return the predicted test set of an iteration, if there is one."""
    return [
        of_iteration(wildcards, wildcards.iteration, "predictions/test.h5")
        for _ in TEST
    ]


def so_far(name):
    """Return an input function for a file of this and all earlier iterations."""

    def get(wildcards):
        return [
            of_iteration(wildcards, k, name)
            for k in range(int(wildcards.iteration) + 1)
        ]

    return get


def doubts(wildcards):
    """Return the fitted uncertainty methods of an iteration."""
    names = [f"uncertainty/{method}.safetensors" for method in METHODS]
    return [of_iteration(wildcards, wildcards.iteration, name) for name in names]


def decided_reports(wildcards):
    """Yield the reports of the iterations, as far as the decisions let the campaign go.

    The decisions are read here and are the input of no job of the loop, so that another stopping rule, or a
    larger budget, reruns the decisions alone.
    """
    for k in range(CONFIG.campaign.max_iterations + 1):
        made = checkpoints.decide.get(campaign=wildcards.campaign, iteration=f"{k:03d}")
        with made.output.output.open() as handle:
            decision = json.load(handle)
        yield of_iteration(wildcards, k, "report.html")
        if decision["stop"]:
            return


def results_to_keep(_):
    """Return what a campaign must have at the end, beside the final report: the latest model with all about it.

    Asked for by `all` itself. As what a job was made from alone, Snakemake does not miss a file once the job's output
    is there: a decision that is lost ended the campaign for ever, since the page of the iteration before lies there.
    """
    where = SimpleNamespace(campaign=CONFIG.campaign.name)
    reports = all_reports(where)
    last = len(reports) - 1
    names = [
        "dataset.h5",
        "ensemble.safetensors",
        "history.csv",
        *(f"uncertainty/{method}.safetensors" for method in METHODS),
        *(f"uncertainty/{method}.json" for method in METHODS),
        *(f"predictions/{name}.h5" for name in PREDICTED),
    ]
    return [
        *reports,
        *(of_iteration(where, k, "metrics.json") for k in range(last + 1)),
        *(of_iteration(where, last, name) for name in names),
    ]


def all_reports(wildcards):
    """Return the reports of all iterations; while one is undecided, Snakemake waits for its decision."""
    return list(decided_reports(wildcards))


def reports_so_far(wildcards):
    """Return the reports of the iterations decided so far: they are written at once, not at the end."""
    found = []
    try:
        for name in decided_reports(wildcards):
            found.append(name)
    except IncompleteCheckpointException:
        pass
    return found


def last_iteration(wildcards, input):
    """Return the number of the last iteration."""
    return len(input.every) - 1
