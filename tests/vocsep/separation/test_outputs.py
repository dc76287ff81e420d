from pathlib import Path

import pytest
import soundfile
from pydantic import ValidationError

from storage.errors import UserError
from tests.vocsep.models.small_models import add_model, music
from vocsep.mapping import SomeFailed
from vocsep.separation.outputs import inputs_to_separate, output_path, output_paths
from vocsep.separation.settings import SeparationSettings
from vocsep.separation.step import SeparateConfig, separate

STEMS = ("vocals", "accompaniment")


def songs_of(inputs: list[Path], output: Path, name: str = "{track}/{stem}") -> list[Path]:
    return inputs_to_separate(inputs, output, name).songs


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


# Names of outputs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("{track}/{stem}", "Zoë.live/vocals.flac"),
        ("{stem}", "vocals.flac"),
        ("{folder}/{track} ({stem})", "Album/Zoë.live (vocals).flac"),
        ("{track}.{suffix}/{stem}", "Zoë.live.mp3/vocals.flac"),
        ("a/b/{stem}_{stem}", "a/b/vocals_vocals.flac"),
    ],
)
def test_name_is_made_of_the_songs_parts(tmp_path: Path, name: str, expected: str) -> None:
    song = tmp_path / "Album" / "Zoë.live.mp3"
    assert output_path(song, "vocals", tmp_path / "out", name, "flac") == tmp_path / "out" / expected


def test_folder_of_a_song_named_without_one_is_that_it_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Here").mkdir()
    monkeypatch.chdir(tmp_path / "Here")
    assert output_path(Path("a.wav"), "vocals", Path("out"), "{folder}/{stem}", "wav") == Path("out/Here/vocals.wav")


@pytest.mark.parametrize("track", ["{stem}", "{track}", "{folder}", "{0}", "{", "}{", "%s", "{{x}}", "{suffix}{stem}"])
def test_braces_in_the_songs_own_name_stay_as_they_are(tmp_path: Path, track: str) -> None:
    song = tmp_path / "songs" / f"{track}.wav"
    path = output_path(song, "vocals", tmp_path, "{track}/{stem}", "wav")
    assert path == tmp_path / track / "vocals.wav"
    folder = tmp_path / track / "a.wav"
    assert output_path(folder, "vocals", tmp_path, "{folder}/{stem}", "wav") == tmp_path / track / "vocals.wav"


@pytest.mark.parametrize(
    ("song", "name"),
    [
        ("...wav", "{track}/{stem}"),  # whose name without its ending is two points
        ("a.wav", "../{stem}"),
        ("a.wav", "{track}/../../{stem}"),
        ("a.wav", "{track}/../{stem}"),
        ("a.wav", "/tmp/{stem}"),
    ],
)
def test_stems_outside_the_output_folder_are_refused(tmp_path: Path, song: str, name: str) -> None:
    with pytest.raises(UserError, match=r"outside|--name") as error:
        output_path(tmp_path / song, "vocals", tmp_path / "out", name, "wav")
    assert "\n" not in str(error.value)


def test_song_whose_name_is_one_point_stays_in_the_output_folder(tmp_path: Path) -> None:
    path = output_path(tmp_path / "..wav", "vocals", tmp_path / "out", "{track}/{stem}", "wav")
    assert path.resolve() == (tmp_path / "out" / "vocals.wav").resolve()


def test_link_out_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(UserError, match="outside"):
        output_path(tmp_path / "a.wav", "vocals", tmp_path / "out", "{track}/{stem}", "wav")


@pytest.mark.parametrize(
    "name", ["{title}/{stem}", "{}/{stem}", "{0}{stem}", "{track.x}{stem}", "{stem!r}", "{stem:9}"]
)
def test_unknown_fields_in_a_name_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"only \{track\}"):
        SeparationSettings(name=name)


@pytest.mark.parametrize("name", ["{stem", "stem}", "{track}/{"])
def test_braces_that_are_not_closed_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        SeparationSettings(name=name)


def test_name_without_the_stem_is_refused_unless_there_is_only_one() -> None:
    with pytest.raises(ValidationError, match="overwrite"):
        SeparationSettings(name="{track}")
    assert SeparationSettings(name="{track}", stems=("vocals",)).name == "{track}"


@pytest.mark.parametrize("stems", [("vocals", "vocals"), ("instrumental", "accompaniment"), (), ("drums",)])
def test_stems_that_are_none_unknown_or_named_twice_are_refused(stems: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        SeparationSettings.model_validate({"stems": stems})


def test_output_that_would_replace_the_song_is_refused_by_whatever_way_it_is_named(tmp_path: Path) -> None:
    song = touch(tmp_path / "vocals" / "vocals.wav")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for output in (tmp_path, tmp_path / "link", tmp_path / "vocals" / ".."):
        with pytest.raises(UserError, match="replace") as error:
            output_paths(song, STEMS, output, "{track}/{stem}", "wav")
        assert str(song) in str(error.value)
    assert output_paths(song, STEMS, tmp_path, "{track}/{stem}", "flac")["vocals"].suffix == ".flac"


# Inputs


def test_folders_are_searched_all_the_way_down_for_audio_files_in_order(tmp_path: Path) -> None:
    names = ["b.wav", "a.mp3", "deep/er/c.flac", "deep/d.M4A", "deep/e.ogg"]
    paths = [touch(tmp_path / "songs" / name) for name in names]
    others = ("cover.jpg", "deep/notes.txt", "more.txt", "list.m3u", "wav", "odd.\n")
    for other in (*others, ".hidden.wav", "deep/._d.M4A", "__MACOSX/a.mp3", "@eaDir/b.wav", ".Trash-0/files/a.wav"):
        touch(tmp_path / "songs" / other)
    found = inputs_to_separate([tmp_path / "songs"], tmp_path / "out")
    assert found.songs == sorted(paths)
    assert found.others == sorted(tmp_path / "songs" / other for other in others)
    assert found.lines() == ["left out, no sound: 2 .txt, 2 others, 1 .jpg, 1 .m3u"]


def test_every_kind_of_file_that_can_be_read_is_taken(tmp_path: Path) -> None:
    endings = ["3gp", "OPUS", "ac3", "aifc", "ape", "au", "avi", "caf", "dsf", "flv", "m4b", "mka", "mp2", "mpc", "mpg"]
    endings += ["oga", "snd", "ts", "tta", "w64", "webm", "wma", "wv"]
    songs = [touch(tmp_path / "songs" / f"Song in {ending}.{ending}") for ending in endings]
    assert songs_of([tmp_path / "songs"], tmp_path / "out") == sorted(songs)


def test_linked_folders_are_searched_and_none_twice_or_for_ever(tmp_path: Path) -> None:
    album = touch(tmp_path / "elsewhere" / "Album" / "a.wav").parent
    songs = tmp_path / "songs"
    own = touch(songs / "b.wav")
    (songs / "Album").symlink_to(album, target_is_directory=True)
    (songs / "Again").symlink_to(album, target_is_directory=True)
    (songs / "round").symlink_to(songs, target_is_directory=True)
    (songs / "gone").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    assert songs_of([songs], tmp_path / "out") == [songs / "Again" / "a.wav", own]


def test_stems_of_an_earlier_run_inside_the_folder_are_no_inputs(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    first, second = touch(songs / "a.wav"), touch(songs / "output" / "b.wav")
    for song in ("a", "b"):
        for stem in STEMS:
            touch(songs / "out" / song / f"{stem}.wav")
    assert songs_of([songs], songs / "out") == [first, second]
    (tmp_path / "link").symlink_to(songs, target_is_directory=True)
    assert songs_of([songs], tmp_path / "link" / "out") == [first, second]
    assert songs_of([tmp_path / "link"], songs / "out") == [
        tmp_path / "link" / "a.wav",
        tmp_path / "link" / "output" / "b.wav",
    ]


def test_files_are_taken_as_named_whatever_their_suffix_and_in_the_order_of_their_naming(tmp_path: Path) -> None:
    odd, inside = touch(tmp_path / "take.xyz"), touch(tmp_path / "songs" / "a.wav")
    assert songs_of([odd, tmp_path / "songs"], tmp_path / "out") == [odd, inside]
    assert songs_of([tmp_path / "songs", odd], tmp_path / "out") == [inside, odd]


def test_folder_that_is_named_like_an_audio_file_is_searched_and_not_taken_for_one(tmp_path: Path) -> None:
    inside = touch(tmp_path / "songs" / "album.mp3" / "a.wav")
    assert songs_of([tmp_path / "songs"], tmp_path / "out") == [inside]


def test_input_that_does_not_exist_is_one_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder") as error:
        inputs_to_separate([tmp_path / "b.wav"], tmp_path / "out")
    assert str(tmp_path / "b.wav") in str(error.value)


def test_inputs_without_a_song_cost_the_others_nothing(tmp_path: Path) -> None:
    song = touch(tmp_path / "a.wav")
    touch(tmp_path / "words" / "a.txt")
    missing, empty, long = tmp_path / "b.wav", tmp_path / "words", tmp_path / ("a" * 300)
    found = inputs_to_separate([missing, song, empty, long], tmp_path / "out")
    assert found.songs == [song]
    assert list(found.problems) == [str(missing), str(empty), str(long)]
    for entry, problem in found.problems.items():
        assert entry in problem
        assert "\n" not in problem


def test_missing_input_among_several_fails_alone_and_what_was_left_out_is_said(tmp_path: Path) -> None:
    add_model(tmp_path / "models")
    song, missing = tmp_path / "songs" / "a.wav", tmp_path / "b.wav"
    touch(tmp_path / "songs" / "words.txt")
    soundfile.write(song, music(0, 1, 8000, 0.3).T, 8000)

    def config(*inputs: Path) -> SeparateConfig:
        settings = SeparationSettings(model="1")
        return SeparateConfig(inputs=inputs, output=tmp_path / "out", models=tmp_path / "models", settings=settings)

    with pytest.raises(SomeFailed) as failed:
        separate(config(missing, song.parent))
    assert list(failed.value.failures) == [str(missing)]
    assert [record["state"] for record in failed.value.result.songs] == ["separated", "failed"]
    assert any("1 .txt" in line for line in failed.value.result.lines())
    assert (tmp_path / "out" / "a" / "vocals.wav").exists()
    with pytest.raises(UserError, match="no such file"):
        separate(config(missing))


def test_input_whose_name_is_too_long_for_any_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too long") as error:
        inputs_to_separate([tmp_path / ("a" * 300)], tmp_path / "out")
    assert "\n" not in str(error.value)


def test_folder_without_audio_files_is_one_line_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path / "songs" / "words.txt")
    with pytest.raises(UserError, match="no audio files") as error:
        inputs_to_separate([tmp_path / "songs"], tmp_path / "out")
    assert str(tmp_path / "songs") in str(error.value)


def test_two_inputs_with_one_name_are_refused_by_both_names_with_what_makes_them_different(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "songs" / "a.wav"), touch(tmp_path / "songs" / "more" / "a.mp3")
    with pytest.raises(UserError, match="same outputs") as error:
        inputs_to_separate([tmp_path / "songs"], tmp_path / "out")
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)
    for field in ("{folder}", "{suffix}"):
        assert field in str(error.value)
        name = f"{field}/{{track}}/{{stem}}"
        assert songs_of([tmp_path / "songs"], tmp_path / "out", name) == [first, second]


def test_file_named_twice_is_separated_once(tmp_path: Path) -> None:
    path = touch(tmp_path / "songs" / "a.wav")
    assert songs_of([path, tmp_path / "songs", path], tmp_path / "out") == [path]
