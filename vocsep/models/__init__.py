"""The network, its objective, running it (torch, ONNX), and its mask for a song."""
