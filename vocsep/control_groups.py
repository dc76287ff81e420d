"""The control groups that this process is in: where the kernel says what they may use."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of the control groups of this process, of either version, and of all above them that can be seen.

    Parameters
    ----------
    controller
        As version 1 names it: `cpu`, `memory`.
    root
        Folder with the kernel's `proc` and `sys`.
    """
    groups = _groups(root)
    for line in lines(root / "proc/self/mountinfo"):
        # 36 35 98:0 /what/of/it /where rw,... - cgroup2 cgroup2 rw,...
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), (*right.split(), "", "", "")[:3]
        if len(fields) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        if kind == "cgroup" and controller not in options.split(","):
            continue
        for _, controllers, path in groups:
            if controller in controllers.split(",") if kind == "cgroup" else controllers == "":
                yield from _seen(root / _unescaped(fields[4]).lstrip("/"), _unescaped(fields[3]), path)


def has_own_share_of_cores(root: Path = Path("/")) -> bool:
    """Whether this process is in a control group, of either version, that the kernel gives a share of the cores.

    Parameters
    ----------
    root
        Folder with the kernel's `proc` and `sys`.
    """
    version_1 = any("cpu" in controllers.split(",") and path != "/" for _, controllers, path in _groups(root))
    # The group of the whole machine has no such file.
    return version_1 or any((folder / "cpu.weight").exists() for folder in control_groups("cpu", root))


def lines(path: Path) -> list[str]:
    """Lines of one of the kernel's files; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _groups(root: Path) -> list[list[str]]:
    """Number of the hierarchy, controllers and path of each control group of this process."""
    return [line.split(":", 2) for line in lines(root / "proc/self/cgroup") if line.count(":") >= 2]


def _seen(mounted: Path, mounted_path: str, path: str) -> Iterator[Path]:
    """Folders of a control group and of those above it, as far as they are in what is mounted."""
    group = PurePosixPath(path)
    inside = group.relative_to(mounted_path) if group.is_relative_to(mounted_path) else PurePosixPath()
    parts = [part for part in inside.parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:count])


def _unescaped(path: str) -> str:
    """A path of mountinfo, which writes spaces and their like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), path)
