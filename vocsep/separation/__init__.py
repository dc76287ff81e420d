"""A trained model, a song, its stems."""
