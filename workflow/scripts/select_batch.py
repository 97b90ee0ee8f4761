"""Select the structures to label next, with a random control slice."""

from dubito.workflow.stage import run_stage

run_stage("select_batch", snakemake)
