"""HTML files that need nothing but themselves: their style, and a player in step with its sounds and pictures."""
