"""Recipes on the demo songs: from data sets to a model that can be shipped."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import yaml

from storage.errors import UserError
from storage.registry import ModelRegistry
from tests.helpers import one_line
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.step import evaluate
from vocsep.mapping import serial
from vocsep.models.torch_network import TorchNetwork, load_network
from vocsep.recipes.checks import run_check
from vocsep.recipes.config import MusicCheck, Recipe, load_recipe
from vocsep.recipes.step import RecipeConfig, RecipeResult, check, make_model
from vocsep.separation.separator import Separator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipe")


@pytest.fixture(scope="module")
def config(folder: Path, demo_root: Path) -> RecipeConfig:
    """A recipe of the demo songs and of one instrumental, which has a few steps."""
    (folder / "instrumentals").mkdir()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (200_000, 2))
    soundfile.write(folder / "instrumentals" / "Waves.wav", noise, 44100)
    (folder / "others").mkdir()
    soundfile.write(folder / "others" / "Surf.wav", noise[::-1], 44100)
    (folder / "voices").mkdir()
    soundfile.write(folder / "voices" / "Hum.wav", 0.01 * np.sin(np.arange(16_000) / 5), 8000)
    recipe = {
        "title": "A small model",
        "sets": [
            {"name": "demo", "source": "demo songs", "licence": "CC0", "path": str(demo_root)},
            {
                "name": "waves",
                "source": "waves",
                "licence": "CC-BY",
                "path": str(folder / "instrumentals"),
                "kind": "accompaniment",
                "accompaniment": 0.5,
            },
        ],
        "checks": [
            {"name": "valid", "source": "Other demo songs", "path": str(demo_root), "split": "valid"},
            {
                "name": "still",
                "source": "Other waves",
                "path": str(folder / "others"),
                "kind": "accompaniment",
            },
            {
                "name": "spoken",
                "source": "A voice over the waves",
                "path": str(folder / "voices"),
                "kind": "vocals",
                "over": "still",
            },
        ],
        "training": {"steps": 4, "width": 4, "batch_size": 4, "validations": 1, "ema": 0, "shown_songs": 0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return RecipeConfig(recipe=folder / "recipe.yaml", work=folder / "work", output=folder / "model")


@pytest.fixture(scope="module")
def made(config: RecipeConfig) -> RecipeResult:
    check(config)
    return make_model(config)


def test_model_is_that_of_the_training_in_half_precision(made: RecipeResult, folder: Path) -> None:
    trained = ModelRegistry(folder / "work" / "models").open("1")
    shipped = ModelRegistry(folder / "nothing").open(made.model)
    shipped.verify()
    wanted = {name: value.detach().half().numpy() for name, value in load_network(trained).named_parameters()}
    held = shipped.load_weights()
    assert all(held[name].dtype == np.float16 and np.array_equal(held[name], wanted[name]) for name in wanted)
    masks = TorchNetwork(load_network(shipped))(np.ones((1, 2, 128, 512), dtype=np.float32))
    assert masks.dtype == np.float32
    assert np.isfinite(masks).all()


def test_card_and_description_name_scores_songs_and_licences_and_no_place_of_this_machine(
    made: RecipeResult, folder: Path
) -> None:
    description = json.loads((folder / "model" / "model.json").read_text())
    card = (folder / "model" / "README.md").read_text()
    assert f"{made.vocals_sdr_db:.2f}" in card
    assert description["scores"]["rows"]["model"]["vocals"]["SDR"]["median"] == made.vocals_sdr_db
    assert {"CC0", "CC-BY"} <= {one["licence"] for one in description["recipe"]["sets"]}
    assert "CC-BY" in card
    assert "Waves" in description["data"]["train"]
    for text in (card, json.dumps(description)):
        assert str(folder) not in text


def test_card_says_how_the_model_does_on_other_music(made: RecipeResult, folder: Path) -> None:
    found = json.loads((folder / "model" / "model.json").read_text())["checks"]
    card = (folder / "model" / "README.md").read_text()
    rate = 44100
    waves = soundfile.read(folder / "others" / "Surf.wav", dtype="float32")[0].T
    vocals = Separator.load(str(folder / "work" / "models" / "0001"), precision="32").separate(waves, rate)["vocals"]
    level = 10 * np.log10(np.square(vocals).sum() / np.square(waves).sum())
    assert found["still"]["vocals_level_db"] == {
        "median": pytest.approx(level, abs=0.01),
        "highest": pytest.approx(level, abs=0.01),
    }
    assert f"| Other waves | 1 | vocals, in dB of the song | {level:.2f} | loudest {level:.2f} |" in card
    scored = found["valid"]
    report = evaluate(
        EvaluateConfig(
            model=str(folder / "work" / "models" / "0001"),
            store=folder / "work" / "demo.zarr",
            split="valid",
            reports=folder / "again",
        )
    )
    assert scored["songs"] == report.summary["songs"]
    assert scored["vocals_sdr_db"]["median"] == pytest.approx(
        report.summary["rows"]["model"]["vocals"]["SDR"]["median"]
    )


def test_voice_is_scored_over_the_music_of_another_check_as_loud_as_it(made: RecipeResult, folder: Path) -> None:
    found = json.loads((folder / "model" / "model.json").read_text())["checks"]["spoken"]
    rate = 44100
    music = soundfile.read(folder / "others" / "Surf.wav", dtype="float32")[0].T[:, : 2 * rate]
    hum = soxr.resample(soundfile.read(folder / "voices" / "Hum.wav", dtype="float32")[0], 8000, rate)
    hum = np.stack([hum, hum]) * np.sqrt(np.square(music).sum() / (2 * np.square(hum).sum()))
    separator = Separator.load(str(folder / "work" / "models" / "0001"), precision="32")
    separated = separator.separate(music + hum, rate)["vocals"]
    scores = [
        10 * np.log10(np.square(hum[:, part]).sum() / np.square(separated[:, part] - hum[:, part]).sum())
        for part in (slice(0, rate), slice(rate, 2 * rate))
    ]
    assert found == {
        "songs": 1,
        "vocals_sdr_db": dict.fromkeys(("median", "mean"), pytest.approx(np.mean(scores), abs=0.01)),
    }
    assert "A voice over the waves" in (folder / "model" / "README.md").read_text()


def test_voice_without_music_to_lay_it_over_is_refused(config: RecipeConfig, folder: Path) -> None:
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["checks"] = content["checks"][2:]
    wrong = folder / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(content))
    one_line(lambda: load_recipe(wrong), "over still")
    del content["checks"][0]["over"]
    wrong.write_text(yaml.safe_dump(content))
    one_line(lambda: load_recipe(wrong), "kind vocals and over")


def test_music_that_the_model_was_trained_on_is_no_check(made: RecipeResult, folder: Path) -> None:
    trained_on = MusicCheck(name="a", source="s", path=folder / "instrumentals", kind="accompaniment")
    evaluation = EvaluateConfig(model="1", models=folder / "work" / "models")
    one_line(lambda: run_check(trained_on, folder / "instrumentals", evaluation, None, serial), "'Waves'")


def test_further_trainings_go_on_from_the_one_before(made: RecipeResult, config: RecipeConfig, folder: Path) -> None:
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    later = content["training"] | {"steps": 2, "learning_rate": 1e-6}
    content["further"] = [{"training": later, "shares": {"waves": {"accompaniment": 0.25}}}]
    content["checks"] = []
    other = folder / "further.yaml"
    other.write_text(yaml.safe_dump(content))
    models = ModelRegistry(folder / "work" / "models")
    before = models.versions()
    result = make_model(config.model_copy(update={"recipe": other, "output": folder / "further"}))
    # The first training is not done again.
    (added,) = set(models.versions()) - set(before)
    first, last = models.open("1"), models.open(str(added))
    assert last.description["training"]["fine_tune"] == "1"
    (extra,) = last.description["training"]["extra"]
    assert extra["accompaniment"] == 0.25
    # At this rate the weights are those of the first, and no others.
    held, wanted = last.load_weights(), first.load_weights()
    for name in (name for name, value in wanted.items() if value.ndim > 1):
        np.testing.assert_allclose(held[name], wanted[name], rtol=0, atol=1e-4)
    description = json.loads((Path(result.model) / "model.json").read_text())
    assert [one["steps_done"] for one in (*description["earlier_trainings"], description["training"])] == [4, 2]
    earlier, later = (one.description["history"] for one in (first, last))
    assert description["history"] == [*earlier, *(point | {"step": 4 + point["step"]} for point in later)]
    assert [point["step"] for point in description["history"]] == [4, 6]
    card = (Path(result.model) / "README.md").read_text()
    assert "trained for 4 steps of 4 patches" in card
    assert "then 2 steps of 4 patches" in card


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shares": {"demo": {"vocals": 0.5}}}, "further.shares: demo"),
        ({"training": {"fine_tune": "3"}}, "further.training.fine_tune"),
        ({"training": {"extra": ["data/other.zarr"]}}, "training.extra"),
    ],
)
def test_further_trainings_that_contradict_the_recipe_are_refused(
    config: RecipeConfig, folder: Path, change: dict[str, object], reason: str
) -> None:
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["further"] = [{"training": {}} | change]
    wrong = folder / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(content))
    one_line(lambda: load_recipe(wrong), reason)


def test_what_is_done_is_not_done_again_and_a_changed_recipe_begins_anew(
    made: RecipeResult, config: RecipeConfig, folder: Path
) -> None:
    models = ModelRegistry(folder / "work" / "models")
    held = models.versions()
    before = (folder / "work" / "models" / "0001" / "model.safetensors").stat().st_mtime_ns
    assert make_model(config) is not None
    assert models.versions() == held
    assert (folder / "work" / "models" / "0001" / "model.safetensors").stat().st_mtime_ns == before
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["training"]["seed"] = 7
    other = folder / "other.yaml"
    other.write_text(yaml.safe_dump(content))
    make_model(config.model_copy(update={"recipe": other}))
    assert models.versions() == [*held, held[-1] + 1]


def test_songs_that_left_a_set_are_not_trained_on(config: RecipeConfig, folder: Path, tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    content = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"checks": []}
    content["sets"][1]["path"] = str(songs)
    changed = RecipeConfig(recipe=tmp_path / "recipe.yaml", work=tmp_path / "work", output=tmp_path / "model")
    for seed, name in enumerate(("Early", "Late")):
        shutil.copy(folder / "others" / "Surf.wav", songs / f"{name}.wav")
        content["training"]["seed"] = seed
        changed.recipe.write_text(yaml.safe_dump(content))
        make_model(changed)
        trained = json.loads((changed.output / "model.json").read_text())["data"]["train"]
        assert [song for song in trained if song in ("Early", "Late")] == [name]
        (songs / f"{name}.wav").unlink()


def test_recipe_in_the_repository_is_one() -> None:
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "bundled.yaml")
    assert recipe.sets[0].kind == "musdb18"
    assert all(one.licence and one.source for one in recipe.sets)


@pytest.mark.parametrize(
    "wrong",
    [
        {"packages": ["-oDir::Etc=/tmp"]},
        {"packages": ["a; rm -r x"]},
        {"name": "../outside"},
        {"path": "x", "packages": ["a-music"]},
        {},
    ],
)
def test_names_that_could_reach_beyond_the_work_folder_are_refused(wrong: dict[str, object]) -> None:
    good = {"name": "a", "source": "s", "licence": "l"}
    Recipe.model_validate({"title": "t", "sets": [good | {"packages": ["a-music"]}]})
    with pytest.raises(ValueError, match="sets"):
        Recipe.model_validate({"title": "t", "sets": [good | wrong]})


def test_missing_recipe_and_missing_songs_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        check(RecipeConfig(recipe=tmp_path / "none.yaml"))
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({"title": "t", "sets": [{"name": "a", "source": "s", "licence": "l", "path": "nowhere"}]})
    )
    with pytest.raises(UserError, match="nowhere") as error:
        check(RecipeConfig(recipe=tmp_path / "recipe.yaml"))
    assert "\n" not in str(error.value)


def test_folder_in_the_place_of_the_recipe_is_named_as_one(tmp_path: Path) -> None:
    one_line(lambda: check(RecipeConfig(recipe=tmp_path)), tmp_path, "a folder")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"presett": "fine"}, "presett: no such setting"),
        ({"preset": "finest"}, "finest"),
        ({"training": {"widht": 4}}, "training.widht: no such setting"),
        ({"second": {"kind": "karoke"}}, "sets.1.kind"),
        ({"second": {"vocals": 1.0}}, "shares of vocals sum to 1"),
        ({"further": [{"training": {}, "shares": {"b": {"accompaniment": 1.0}}}]}, "shares of accompaniment sum to 1"),
        ({"first": {"vocals": 0.5}}, "a: the first set"),
    ],
)
def test_mistakes_of_a_recipe_are_found_before_any_work(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    one = {"source": "s", "licence": "l", "path": str(tmp_path)}
    sets = [one | {"name": "a"} | change.get("first", {}), one | {"name": "b"} | change.get("second", {})]
    others = {name: value for name, value in change.items() if name not in ("first", "second")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"title": "t", "sets": sets} | others))
    one_line(lambda: check(RecipeConfig(recipe=tmp_path / "recipe.yaml", output=tmp_path / "model")), reason)


def test_music_of_the_checks_is_fetched_before_anything_is_preprocessed(
    config: RecipeConfig, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["checks"] = [{"name": "games", "source": "s", "packages": ["a-music"], "kind": "accompaniment"}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("PATH", "/nowhere")
    changed = RecipeConfig(recipe=tmp_path / "recipe.yaml", work=tmp_path / "work", output=tmp_path / "model")
    one_line(lambda: make_model(changed), "apt-get")
    assert not list((tmp_path / "work").glob("*.zarr"))


@pytest.mark.parametrize("name", ["song.wav", "songs/song.wav", ".hidden"])
def test_folder_that_holds_something_else_is_not_replaced(tmp_path: Path, name: str) -> None:
    recipe = {"title": "t", "sets": [{"name": "a", "source": "s", "licence": "l", "path": str(tmp_path)}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    output = tmp_path / "output"
    config = RecipeConfig(recipe=tmp_path / "recipe.yaml", work=tmp_path / "work", output=output)
    check(config)
    output.mkdir()
    (output / "README.md").write_text("A model's card.")
    check(config)
    file = output / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    one_line(lambda: make_model(config), output, "--output")
    assert file.read_text() == "mine"
    assert not (tmp_path / "work").exists()
