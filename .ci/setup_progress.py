"""`pip install ... 2>&1 | setup_progress.py LOG CONSTRAINTS`: how far pip is, what it downloads, and what is wrong.

All that pip says goes to LOG. Only the standard library is installed yet.
"""

import re
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

LARGE_BYTES = 10_000_000
EVERY = 25
INSTALLING = "  installing "
SECONDS = 10
UNITS = {"bytes": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}

PACKAGE = re.compile(r"(Collecting|Processing|Requirement already satisfied:) ")
DOWNLOAD = re.compile(r"\s*Downloading (?:\S*/)?(\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
# Of no use: an index that lacks one package has others, and a separate environment may be root's.
NOISE = re.compile(r"WARNING: (Location .* is ignored|Running pip as )")


def shown(lines: Iterable[str], total: int) -> Iterator[str]:
    """Lines for people, of those that pip writes; `total` is how many packages there may be."""
    packages = received = 0
    for line in lines:
        if PACKAGE.match(line):
            packages += 1
            if packages % EVERY == 0:
                yield f"  {packages} of about {total} packages, {received / 1e6:.0f} MB downloaded"
        elif found := DOWNLOAD.match(line):
            name, number, unit = found.groups()
            size = float(number) * UNITS[unit]
            received += size
            if size >= LARGE_BYTES:
                yield f"  downloading {name} ({number} {unit})"
        elif line.startswith("Installing collected packages: "):
            yield f"{INSTALLING}{line.count(',') + 1} packages, {received / 1e6:.0f} MB downloaded ..."
        elif re.match("WARNING|ERROR|DEPRECATION", line) and not NOISE.match(line):
            yield line.rstrip("\n")


def count_installed(ended: threading.Event) -> None:
    """Say from time to time how many packages there are: pip is silent while it installs."""
    folder = Path(sysconfig.get_paths()["purelib"])
    while not ended.wait(SECONDS):
        print(f"  {len(list(folder.glob('*.dist-info')))} packages installed", flush=True)


def main() -> None:
    """Pass on what pip says."""
    log, constraints = map(Path, sys.argv[1:])
    total = sum("==" in line for line in constraints.read_text(encoding="utf-8").splitlines())
    with log.open("w", encoding="utf-8") as kept:

        def logged() -> Iterator[str]:
            for line in sys.stdin:
                kept.write(line)
                yield line

        ended = threading.Event()
        for line in shown(logged(), total):
            print(line, flush=True)
            if line.startswith(INSTALLING):
                threading.Thread(target=count_installed, args=(ended,), daemon=True).start()
        ended.set()


if __name__ == "__main__":
    main()
