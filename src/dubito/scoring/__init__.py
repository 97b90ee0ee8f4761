"""Adaptive scoring: a cheap score of one member first, all members only where they could change the decision."""
