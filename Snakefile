# An active-learning campaign as one graph of jobs: what depends on what, in workflow/rules;
# what a job does, in src/dubito/stages.
#   snakemake --cores 2                                     the demo, config/config.yaml
#   snakemake --cores 2 --configfile config/examples/teacher.yaml
#   snakemake --profile slurm                               on a cluster
#   snakemake --cores 1 study_label_savings                 a study: rules of its own, no campaign is read or touched
import sys

from snakemake.utils import min_version

from dubito.workflow.campaign import container_image
from dubito.workflow.targets import asks_for_study

min_version("9.0")

if not workflow.overwrite_configfiles and not asks_for_study(sys.argv[1:]):

    configfile: "config/config.yaml"


# With `--sdm apptainer` (envs/dubito.def); otherwise it counts for nothing.
if container_image():

    container: container_image()


report: "workflow/report/workflow.rst"


if asks_for_study(sys.argv[1:]):

    include: "workflow/rules/studies.smk"

else:

    include: "workflow/rules/common.smk"
    include: "workflow/rules/data.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/uncertainty.smk"
    include: "workflow/rules/explore.smk"
    include: "workflow/rules/select.smk"
    include: "workflow/rules/label.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/report.smk"

    remember_batches()

    # Seconds each: not worth a place in a cluster's queue.
    localrules:
        all,
        prepare_structures,
        prepare_test,
        select_batch,
        build_dataset,
        merge_ensemble,
        evaluate,
        choose_driver,
        decide,
        write_report,
        publish_report,

    rule all:
        default_target: True
        input:
            expand(
                "results/{campaign}/report/index.html", campaign=CONFIG.campaign.name
            ),
            results_to_keep,

    settle_requests()

    onstart:
        start_campaign()

    onsuccess:
        announce(finished_line(CONFIG.campaign.name))
        end_campaign()

    onerror:
        announce(failed_line(CONFIG.campaign.name))
