"""Studies on labelled pools: campaigns in which every label is known."""
