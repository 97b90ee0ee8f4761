"""Do one job of a study."""

from dubito.workflow.study import run_study_job

run_study_job(snakemake)
