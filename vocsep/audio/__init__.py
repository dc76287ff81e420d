"""Sound files to waveforms and back: formats, info, reading, resampling, writing."""
