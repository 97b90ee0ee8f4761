"""What connects the stages to Snakemake: configuration, guards of the driver, running one stage.

Nothing is imported here, so that a job pays only for what its stage needs.
"""
