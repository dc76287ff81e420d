"""What changed, a challenger, a decision."""
