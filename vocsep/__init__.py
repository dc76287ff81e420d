"""What is computed: audio, spectrograms, model, objective, training, evaluation, separation, command line."""
