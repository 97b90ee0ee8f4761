"""Make or read the structures the campaign starts from."""

from dubito.workflow.stage import run_stage

run_stage("prepare_structures", snakemake)
