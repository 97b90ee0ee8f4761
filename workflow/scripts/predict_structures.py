"""Predict the dataset, the profiles and the test set with the model of this iteration."""

from dubito.workflow.stage import run_stage

run_stage("predict_structures", snakemake)
