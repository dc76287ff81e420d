"""Every setting of training as a command-line option, and a YAML file of settings."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

import flows.cli
import vocsep.cli.main
from storage.errors import UserError
from vocsep.cli.options import command_with_settings
from vocsep.config import validated
from vocsep.models.objective_config import Objective
from vocsep.patches.sampling import Augmentation
from vocsep.training.config import TrainConfig
from vocsep.training.settings_files import load_settings

# A value that is not the default, for every setting.
GIVEN: dict[str, Any] = {
    "steps": 7,
    "epochs": 2.5,
    "max_minutes": 0.25,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.2,
    "schedule": "plateau",
    "warmup": 0.1,
    "gradient_clip": 1.5,
    "ema": 0.9,
    "targets": ["vocals", "accompaniment"],
    "channels": 1,
    "network": "unet",
    "extra": [{"store": "more.zarr", "vocals": 0.25, "accompaniment": 0.5}],
    "width": 4,
    "dropout": 0.25,
    "fine_tune": "champion",
    "validations": 3,
    "shown_songs": 1,
    "patience": 2,
    "checkpoint_seconds": 5.5,
    "seed": 11,
    "device": "cpu",
    "devices": 2,
    "precision": "32",
    "data": "stream",
}
GIVEN_AUGMENTATION = {
    "remix": 0.1,
    "gain": 0.2,
    "gain_db": 3.0,
    "swap": 0.3,
    "pitch": 0.4,
    "pitch_semitones": 2.0,
    "tempo": 0.6,
    "tempo_factor": 1.5,
}
GIVEN_OBJECTIVE = {
    "input": "log-unit",
    "output": "log-mask",
    "target": "oracle",
    "loss": "mse",
    "bins": "all",
    "bias": -0.5,
}
INNER: dict[str, dict[str, Any]] = {"augmentation": GIVEN_AUGMENTATION, "objective": GIVEN_OBJECTIVE}


def settings_of(*arguments: str) -> dict[str, Any]:
    """Settings that a command gets from these arguments."""
    app = typer.Typer()
    caught: list[dict[str, Any]] = []

    def command(values: dict[str, Any], store: Annotated[Path, typer.Option()] = Path("store")) -> None:
        caught.append(values)

    app.command()(command_with_settings(TrainConfig, command, load=load_settings, declarations={}))
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    (settings,) = caught
    return settings


def config_of(*arguments: str) -> TrainConfig:
    return validated(TrainConfig, settings_of(*arguments), "command line")


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def command_of(app: typer.Typer, name: str) -> Any:
    """A command as it is called."""
    group: Any = typer.main.get_command(app)
    return group.resolve_command(group.make_context("x", [name], resilient_parsing=True), [name])[1]


@pytest.mark.parametrize("name", ["preprocess", "train", "evaluate", "separate", "compare", "retrain"])
def test_both_programs_have_every_step_with_the_same_options_and_help(name: str) -> None:
    first, second = (command_of(app, name) for app in (vocsep.cli.main.app, flows.cli.app))
    assert first.help == second.help
    assert first.help
    shown = [[(p.name, p.opts, p.help, p.default) for p in command.params] for command in (first, second)]
    assert shown[0] == shown[1]
    assert all(text for _, _, text, _ in shown[0])


@pytest.mark.parametrize("app", [vocsep.cli.main.app, flows.cli.app], ids=["vocsep", "flows"])
def test_every_setting_is_an_option_of_train_with_a_description(app: typer.Typer) -> None:
    command = command_of(app, "train")
    options = {name: parameter for parameter in command.params for name in parameter.opts}
    settings = (TrainConfig.model_fields.keys() - INNER.keys()) | Augmentation.model_fields.keys()
    settings |= Objective.model_fields.keys()
    missing = {option(name) for name in settings} - options.keys()
    assert missing == set()
    assert all(options[option(name)].help for name in settings)
    assert {"--config", "--resume", "--store", "--models", "--runs"} <= options.keys()
    assert "--augmentation" not in options


def test_values_of_all_options_arrive() -> None:
    assert GIVEN.keys() == TrainConfig.model_fields.keys() - INNER.keys()
    assert GIVEN_OBJECTIVE.keys() == Objective.model_fields.keys()
    assert GIVEN_AUGMENTATION.keys() == Augmentation.model_fields.keys()
    arguments = []
    for name, value in (GIVEN | GIVEN_AUGMENTATION | GIVEN_OBJECTIVE).items():
        if name == "extra":
            value = ["more.zarr=0.25:0.5"]
        arguments += [option(name), ",".join(value) if isinstance(value, list) else str(value)]
    config = config_of(*arguments)
    assert config.model_dump(mode="json") == GIVEN | INNER
    untouched = TrainConfig().model_dump(mode="json")
    assert not [name for name, value in GIVEN.items() if untouched[name] == value]
    for setting, given in INNER.items():
        assert not [name for name, value in given.items() if untouched[setting][name] == value]


def test_option_of_several_values_may_be_given_several_times() -> None:
    config = config_of("--extra", "a.zarr", "--extra", "b.zarr=0.1,c.zarr=0.2:0")
    found = [(str(one.store), one.vocals, one.accompaniment) for one in config.extra]
    assert found == [("a.zarr", None, None), ("b.zarr", 0.1, 0.1), ("c.zarr", 0.2, 0.0)]
    with pytest.raises(UserError, match="extra"):
        config_of("--extra", "a.zarr=much")


def test_without_options_the_settings_are_the_defaults() -> None:
    assert settings_of() == {}
    assert settings_of("--remix", "0.3") == {"augmentation": {"remix": 0.3}}


def test_config_file_sets_all_fields_and_options_go_before_it(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(json.dumps(GIVEN | INNER))
    assert config_of("--config", str(path)).model_dump(mode="json") == GIVEN | INNER
    config = config_of("--config", str(path), "--steps", "99", "--pitch", "0", "--targets", "vocals")
    assert (config.steps, config.targets) == (99, ("vocals",))
    assert config.augmentation == Augmentation.model_validate(GIVEN_AUGMENTATION | {"pitch": 0})
    assert config.width == GIVEN["width"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("momentum: 0.9", ("momentum",)),
        ("augmentation: {reverb: 1}", ("augmentation.reverb",)),
        ("augmentation: 3", ("augmentation",)),
        ("augmentation:", ("augmentation",)),
        ("objective: {loss: l3}", ("objective.loss",)),
        ("steps: many", ("steps",)),
        ("targets: drums", ("targets",)),
        ("1: 2", ("1",)),
        ("[steps, 3]", ("settings.yaml",)),
        ("# nothing but words", ("settings.yaml",)),
        ("steps: [", ("settings.yaml", "YAML")),
        ("steps: \x00", ("settings.yaml", "YAML")),
    ],
)
@pytest.mark.parametrize("more", [(), ("--remix", "0.3")], ids=["alone", "with an option"])
def test_wrong_config_file_is_one_line(tmp_path: Path, text: str, words: tuple[str, ...], more: tuple[str]) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        config_of("--config", str(path), *more)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_config_file_that_is_missing_or_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "gone.yaml", tmp_path / "binary.yaml", tmp_path):
        with pytest.raises(UserError) as error:
            config_of("--config", str(path))
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--loss", "l3"), "loss"),
        (("--targets", "drums"), "targets"),
        (("--seed", str(2**32)), "seed"),
        (("--epochs", "inf"), "epochs"),
        (("--tempo-factor", "0.5"), "tempo_factor"),
        (("--precision", "16"), "precision"),
    ],
)
def test_wrong_value_is_one_line_that_names_the_setting(
    arguments: tuple[str, ...], word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vocsep", "train", *arguments])
    with pytest.raises(SystemExit) as end:
        vocsep.cli.main.main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert word in line
