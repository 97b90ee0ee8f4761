"""``dubito check --profile``: what a start on a cluster would trip over, told before it.

One module per concept: :mod:`plan` (what the campaign asks for), :mod:`dubito.core.slurm` (what the cluster has),
``check_*`` (the two compared), :mod:`trial` (one small job per partition that looks from a node), :mod:`report` (all
of it, in order). Nothing here is imported, and no scheduler is needed, by ``dubito check`` without a profile.
"""
