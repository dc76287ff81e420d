"""The precision that networks compute in."""

from typing import Literal

Precision = Literal["bfloat16", "float32"]
WantedPrecision = Literal["auto", "32", "bf16"]


def pick_precision(device: str, wanted: WantedPrecision) -> Precision:
    """The precision of matrix products; `auto` takes bfloat16 only where the hardware computes it.

    On CPUs without bfloat16 instructions autocast is many times slower than float32.
    """
    import torch  # not for settings that only say what is wanted

    if wanted == "auto":
        if device == "cuda":
            wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
        elif device == "cpu":
            capabilities = torch.cpu.get_capabilities()
            wanted = "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32"
        else:
            wanted = "32"
    return "bfloat16" if wanted == "bf16" else "float32"
