"""How many labels a selector saves: campaigns replayed on labelled pools, each selector against random."""
