"""Label the structures of an energy profile, which no model is ever trained on."""

from dubito.workflow.stage import run_stage

run_stage("prepare_reference", snakemake)
