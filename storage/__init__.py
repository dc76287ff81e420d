"""What lasts: the spectrogram store, the model registry and plain files. Knows no audio and no torch model."""
