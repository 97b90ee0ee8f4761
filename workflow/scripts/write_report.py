"""Write the report of the campaign as it stands after this iteration."""

from dubito.workflow.stage import run_stage

run_stage("write_report", snakemake)
