"""Training of the ensemble: loss, optimiser, schedule, checkpoints and the loop."""
