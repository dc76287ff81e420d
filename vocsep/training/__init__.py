"""A store to a model in the registry."""
