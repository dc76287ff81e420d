"""Headline figures: `python -m benchmarks.NAME` prints a table and, last, one JSON object."""
