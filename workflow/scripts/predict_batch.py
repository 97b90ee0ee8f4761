"""Ask all uncertainty methods about the batch."""

from dubito.workflow.stage import run_stage

run_stage("predict_batch", snakemake)
