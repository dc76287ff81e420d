"""Training systems side by side, and what made the difference."""
