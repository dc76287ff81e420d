"""Shapes of an array's one shard and of its chunks."""

import math


def padded_shape(shape: tuple[int, ...], chunk_length: int) -> tuple[int, ...]:
    """`shape` with its second axis rounded up to whole chunks, at least one."""
    return (shape[0], max(1, math.ceil(shape[1] / chunk_length)) * chunk_length, *shape[2:])


def chunk_shape(shape: tuple[int, ...], chunk_length: int) -> tuple[int, ...]:
    """Shape of one chunk: one index of the first axis, `chunk_length` of the second, all of the others."""
    return (1, chunk_length, *shape[2:])
