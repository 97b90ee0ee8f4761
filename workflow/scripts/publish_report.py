"""Write the final report and summary of the campaign."""

from dubito.workflow.stage import run_stage

run_stage("write_report", snakemake)
