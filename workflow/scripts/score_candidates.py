"""Predict the candidates and say how doubtful each prediction is."""

from dubito.workflow.stage import run_stage

run_stage("score_candidates", snakemake)
