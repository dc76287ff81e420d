"""Songs whose files have names that a store cannot hold."""

import os
from pathlib import Path

import pytest

from storage.store import SpectrogramStore
from tests.helpers import one_line
from tests.vocsep.preprocessing.test_twins import config, put_song
from vocsep.mapping import SomeFailed
from vocsep.preprocessing.step import preprocess


def test_name_that_is_not_utf_8_costs_no_other_song_and_is_told(tmp_path: Path) -> None:
    root = tmp_path / "songs"
    for seed, (split, name) in enumerate((("train", "One"), ("train", "Two"), ("test", "Three"))):
        folder = put_song(root, split, name, seed)
        if name == "One":
            (folder / "mixture.wav").rename(folder / os.fsdecode(b"mix\xe9.wav"))
    with pytest.raises(SomeFailed) as some:
        preprocess(config(root))
    assert list(some.value.failures) == ["One"]
    assert "mix\\udce9.wav: its name is not UTF-8" in some.value.failures["One"]
    tracks = SpectrogramStore.open(root.with_name("s.zarr")).manifest.tracks
    assert {track.name for track in tracks.values()} == {"Two", "Three"}
    odd = root.rename(root.with_name(os.fsdecode(b"caf\xe9")))
    one_line(lambda: preprocess(config(odd)), odd, "not UTF-8")
