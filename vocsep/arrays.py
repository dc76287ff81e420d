"""Names for arrays."""

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]
Spectrogram = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
