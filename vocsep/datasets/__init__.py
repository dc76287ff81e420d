"""Which songs there are, in which split, and what their sources are made of."""
