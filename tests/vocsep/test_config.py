"""Files of settings, even hostile ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import one_line
from vocsep.config import load_yaml
from vocsep.recipes.config import load_recipe
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.training.settings_files import load_settings

ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
)


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: " + "[" * 3_000,
        "a: " + "[" * 500 + "]" * 500,
        "a: b\n" * 100_000,
        "a: 2020-13-45",
        "a: " + "9" * 5000,
        "a: *nothing",
        "a: !!python/object/apply:os.system [ls]",
        "? [a]\n: b",
        "[a, b]",
        "text",
        "",
        "a: \x00",
        "a: \xff",
    ],
    ids=range(16),
)
def test_file_that_holds_no_settings_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="latin-1")
    one_line(lambda: load_yaml(str(path)), path)


@pytest.mark.parametrize("load", [load_settings, load_spectrogram_config, load_recipe])
@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/dev", "/no/such/file", "x" * 5000, "a\0b", ""])
def test_what_is_no_file_of_settings_is_one_line(load: Callable[[Any], Any], name: str) -> None:
    one_line(lambda: load(Path(name) if load is load_recipe else name))


def test_aliases_that_stand_for_little_are_read(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("one: &one {a: 1}\ntwo: *one\nthree: {<<: *one, b: 2}\n")
    assert load_yaml(str(path)) == {"one": {"a": 1}, "two": {"a": 1}, "three": {"a": 1, "b": 2}}
