"""Models and estimates made elsewhere, scored on songs with known stems."""
