"""Sound files to waveforms and back: opening, whether they are whole, info, reading, resampling, formats, writing."""
