"""Numbers from references and estimates: BSSEval v4, whole-song SDR, confidence intervals."""
