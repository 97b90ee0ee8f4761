"""Join the groups of members into one ensemble."""

from dubito.workflow.stage import run_stage

run_stage("merge_ensemble", snakemake)
