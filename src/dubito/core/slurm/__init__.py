"""What a Slurm cluster says of itself, read in one place: for the driver of a campaign, and for `dubito check`.

One module per concept: :mod:`asking` (commands), :mod:`cluster` (partitions and nodes), :mod:`accounts` (associations
and qualities of service), :mod:`features` (constraints), :mod:`limits` (the most a job can get of all these),
:mod:`placeholders` (names that were left to be filled in). Everything here only looks.
"""
