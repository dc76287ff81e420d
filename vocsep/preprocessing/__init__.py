"""Songs to the spectrogram store: plan, room, track, update (disk or bucket), repair, picture."""
