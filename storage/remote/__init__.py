"""Stores in a bucket: the connection, checked transfer, the store at a URL, its local copy."""
