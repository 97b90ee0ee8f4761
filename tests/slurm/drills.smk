# Jobs that meet with an accident at their first attempt; drill_job.py says what each does.
import sys
from pathlib import Path

from dubito.workflow import slurm_watch
from dubito.workflow.slurm_guard import guard_slurm
from dubito.workflow.slurm_signal import pass_signals_on

if workflow.is_main_process:
    slurm_watch.TRY_AGAIN_S = 1.0
    guard_slurm("drill")
else:
    pass_signals_on()

WORKER = Path(workflow.basedir, "drill_job.py")
ACCIDENTS = ["scancelled", "memory", "time", "node", "steady", "held", "gpu", "during"]


def growing(amount):
    return lambda wildcards, attempt: amount * attempt


localrules:
    all,
    outage_begins,


rule all:
    input:
        "lost.done",


rule accident:
    output:
        "{job}.done",
    wildcard_constraints:
        job="scancelled|memory|steady",
    resources:
        mem_mb=growing(500),
        runtime=10,
        attempt=lambda wildcards, attempt: attempt,
    shell:
        "{sys.executable} {WORKER} {wildcards.job} {resources.attempt} {output}"


# With the signal that warns half a minute ahead of the limit, which the test brings nearer once the job runs.
use rule accident as time_limit with:
    output:
        "{job}.done",
    wildcard_constraints:
        job="time",
    resources:
        mem_mb=500,
        runtime=growing(3),
        attempt=lambda wildcards, attempt: attempt,
        slurm_extra="'--signal=TERM@30'",


use rule accident as on_node with:
    output:
        "{job}.done",
    wildcard_constraints:
        job="node",
    resources:
        mem_mb=500,
        runtime=10,
        attempt=lambda wildcards, attempt: attempt,
        slurm_extra=lambda wildcards, attempt: (
            f"--nodelist={config['node']}" if attempt == 1 else ""
        ),


use rule accident as held with:
    output:
        "{job}.done",
    wildcard_constraints:
        job="held",
    resources:
        mem_mb=500,
        runtime=10,
        attempt=lambda wildcards, attempt: attempt,
        slurm_extra="'--hold'",


# Its GPU comes from the profile's variables.
use rule accident as on_gpu with:
    output:
        "{job}.done",
    wildcard_constraints:
        job="gpu",


rule outage_begins:
    output:
        "outage.begun",
    shell:
        "until test -e outage; do sleep 0.2; done; touch {output}"


# Submitted while the controller is away.
use rule accident as during with:
    input:
        "outage.begun",
    output:
        "{job}.done",
    wildcard_constraints:
        job="during",


# Slurm forgets this one.
use rule accident as lost with:
    input:
        expand("{job}.done", job=ACCIDENTS),
    output:
        "{job}.done",
    wildcard_constraints:
        job="lost",
