import json
import subprocess
import sys
from pathlib import Path

from tests.vocsep.audio.audio_files import TAGS, WHOLE_KINDS, write_kind, write_song
from tests.vocsep.models.small_models import music

DAMAGES = 400
HOSTILE = DAMAGES // 5
KINDS = ("wav", "aiff", "flac", "mp3", "m4a", "ogg", "opus", "mkv")


def test_damaged_and_hostile_files_are_separated_or_one_line_and_never_a_crash_or_hang(tmp_path: Path) -> None:
    for kind in KINDS:
        song = tmp_path / "songs" / f"song.{kind}"
        rate = 48000 if kind == "opus" else 22050
        with_cover = kind in ("mp3", "flac", "m4a")
        write_song(song, music(1, 2, rate, 0.4), rate, tags=TAGS, cover=with_cover, video=kind == "mkv")
    for kind in WHOLE_KINDS.keys() - set(KINDS):
        write_kind(tmp_path / "songs" / f"song.{kind.replace('.', '-')}", kind, music(1, 2, 48000, 0.4), 48000)
    module = "tests.vocsep.separation.fuzz_separation"
    command = [sys.executable, "-X", "faulthandler", "-m", module, str(tmp_path), str(DAMAGES)]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        # A hang ends the test here; the last line of the log then tells the seed.
        root = Path(__file__).resolve().parents[3]
        finished = subprocess.run(command, cwd=root, stdout=file, stderr=subprocess.STDOUT, timeout=600, check=False)
    lines = log.read_text().splitlines()
    assert finished.returncode == 0, lines[-12:]
    assert [line for line in lines if line.startswith("WRONG")] == []
    assert sum(line.startswith("seed ") for line in lines) == DAMAGES + HOSTILE
    # FFmpeg itself writes nothing to a user's terminal.
    assert len(lines) == DAMAGES + HOSTILE + 1
    outcomes = json.loads(lines[-1])
    assert sum(outcomes.values()) == DAMAGES + HOSTILE
    # The damages are neither all deadly nor all harmless.
    assert all(outcomes[f"{kind} refused"] for kind in KINDS)
    kinds = {*KINDS, *(kind.replace(".", "-") for kind in WHOLE_KINDS)}
    assert sum(outcomes.get(f"{kind} separated", 0) for kind in kinds) > DAMAGES // 10
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name.startswith(".")] == []
