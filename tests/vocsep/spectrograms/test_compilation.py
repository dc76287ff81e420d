"""What is compiled before the clock of a training starts."""

import subprocess
import sys

CODE = """
import numpy as np
from vocsep.spectrograms.stft import compile_istft, istft

compile_istft()
import librosa

functions = [vars(librosa.core.spectrum)["__overlap_add"], vars(librosa.filters)["__window_ss_fill"]]
compiled = [len(function.signatures) for function in functions]
for channels in (1, 2):
    istft(np.ones((channels, 100, 2049), dtype=np.complex64), n_fft=4096, hop_length=1024, samples=99 * 1024)
print(compiled, [len(function.signatures) for function in functions])
"""


def test_nothing_is_left_to_compile_for_mono_and_stereo_songs() -> None:
    # In a separate process: what was compiled for other tests stays.
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[2, 1] [2, 1]"
