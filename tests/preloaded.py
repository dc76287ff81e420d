"""What processes that tests fork find done: imports, and what librosa compiles in every process, for seconds."""

import torch._dynamo  # noqa: F401 - the first optimizer imports it

import vocsep.cli.main
import vocsep.evaluation.step
import vocsep.training.step  # noqa: F401
from vocsep.spectrograms.stft import compile_istft

compile_istft()
