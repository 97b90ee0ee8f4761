"""Label one shard of the selected structures."""

from dubito.workflow.stage import run_stage

run_stage("label_structures", snakemake)
