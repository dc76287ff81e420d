"""Waveforms to spectrograms and masks back onto waveforms: settings, FFT, STFT, features, masking, drawing."""
