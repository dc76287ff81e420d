"""Songs made by computer, in the form of MUSDB18."""
