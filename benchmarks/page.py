"""Memory of `vocsep page`: its server and the process that separates, with one long song and with many short ones.

    python -m benchmarks.page [--minutes 20] [--files 30]

The songs are made by computer. What is given is the most that was seen of a process's proportional set size, which
counts what processes share once.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from typing import Any

import psutil
import soundfile

from vocsep.demo.dataset import synthesize_song

RATE = 44_100
LOOP_SECONDS = 40.0
SHORT_SECONDS = 10


def main() -> None:
    """Run the page, give it the songs, print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--files", type=int, default=30)
    arguments = parser.parse_args()
    loop = synthesize_song(0, 0, LOOP_SECONDS)["mixture"].T
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vocsep", "page", "--no-browser", "--port", "0", "--folder", f"{folder}/page"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[2]
            peaks: dict[str, float] = {}
            watcher = threading.Thread(target=watch, args=(process.pid, peaks), daemon=True)
            watcher.start()
            values: dict[str, float] = {}
            long = io.BytesIO()
            with soundfile.SoundFile(long, "w", RATE, 2, format="FLAC") as file:
                for _ in range(max(1, round(arguments.minutes * 60 / LOOP_SECONDS))):
                    file.write(loop)
            separate(address, [long.getvalue()])
            values |= {f"long_{name}_megabytes": peak for name, peak in peaks.items()}
            short = io.BytesIO()
            soundfile.write(short, loop[: SHORT_SECONDS * RATE], RATE, format="FLAC")
            peaks.clear()
            separate(address, [short.getvalue()] * arguments.files)
            values |= {f"files_{name}_megabytes": peak for name, peak in peaks.items()}
            process.terminate()
    for name, value in values.items():
        print(f"{name.replace('_', ' '):<28}{value:>8,.0f}")
    print(json.dumps({"name": "page", "values": values, "ratios": {}}))


def watch(number: int, peaks: dict[str, float]) -> None:
    """Keep the greatest memory, in MB, of the server, of what it started, and of both."""
    with contextlib.suppress(psutil.NoSuchProcess):
        server = psutil.Process(number)
        while True:
            own, others = megabytes(server), sum(map(megabytes, server.children(recursive=True)))
            for name, value in {"server": own, "separating": others, "together": own + others}.items():
                peaks[name] = max(peaks.get(name, 0.0), value)
            time.sleep(0.2)


def megabytes(process: psutil.Process) -> float:
    """Proportional set size; 0 for a process that is gone."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return float(process.memory_full_info().pss / 1e6)
    return 0.0


def separate(address: str, songs: list[bytes]) -> None:
    """Upload songs, and wait until all are separated."""
    token = ask(address, "GET").decode().partition('name="vocsep-token" content="')[2].partition('"')[0]
    for number, content in enumerate(songs):
        announcement = json.dumps({"name": f"{number}.flac", "size": len(content)}).encode()
        song = json.loads(ask(f"{address}api/songs", "POST", announcement, token))["id"]
        ask(f"{address}api/songs/{song}", "PUT", content, token)
    while True:
        found: list[dict[str, Any]] = json.loads(ask(f"{address}api/state", "GET"))["songs"]
        states = [take["state"] for song in found for take in song["takes"]]
        if "failed" in states:
            raise SystemExit("a song failed")
        if set(states) == {"done"}:
            return
        time.sleep(0.5)


def ask(address: str, method: str, body: bytes | None = None, token: str = "") -> bytes:
    """The content of an answer; loopback is never asked through a proxy."""
    request = urllib.request.Request(address, body, {"X-Vocsep-Token": token}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    content: bytes = opener.open(request, timeout=120).read()
    return content


if __name__ == "__main__":
    main()
