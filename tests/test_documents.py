"""What the documents say is so: links lead somewhere, commands and options exist, quoted messages are in the code."""

import ast
import os
import re
import shlex
import subprocess
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import benchmarks.report
import flows.cli
import vocsep.cli.main

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Made when the site is built, whose strict build checks links to them.
GENERATED = ROOT / "docs/reference"
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *languages: str) -> list[str]:
    """What is in a document's fenced blocks of these languages."""
    return [content for language, content in BLOCK.findall(path.read_text("utf-8")) if language in languages]


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    letters = (re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", text)).strip().lower() for text in plain)
    return {re.sub(r"\s", "-", text) for text in letters}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path) -> None:
    dead = []
    for link in LINK.findall(BLOCK.sub("", document.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if target.parent == GENERATED:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def command_lines(path: Path) -> list[list[str]]:
    """Commands in a document's blocks of shell, without the variables before them and the folder of the program."""
    found = []
    for block in blocks(path, "", "bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if not re.search(r"\b(vocsep|flows|make)\b", line):
                continue
            words = shlex.split(line, comments=True)
            for part in split_at(words, {"&&", "|", ";", "&"}):
                while part and re.match(r"\w+=", part[0]):
                    part = part[1:]
                if part:
                    found.append([Path(part[0]).name, *part[1:]])
    return found


def split_at(words: list[str], ends: set[str]) -> Iterator[list[str]]:
    """Parts of a list between words."""
    part: list[str] = []
    for word in words:
        if word in ends:
            yield part
            part = []
        else:
            part.append(word)
    yield part


def parse(app: typer.Typer, arguments: list[str]) -> None:
    """Read a command line as the program does, down to the values of its options; nothing is run."""
    group: Any = typer.main.get_command(app)
    try:
        context = group.make_context("vocsep", list(arguments))
        while hasattr(group, "resolve_command"):
            name, group, arguments = group.resolve_command(context, arguments)
            if hasattr(group, "resolve_command") and not arguments:
                break  # prints its help
            context = group.make_context(name, list(arguments), parent=context)
    except typer.Exit:  # --help, --version
        pass


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_programs_know_the_commands_and_options_of_the_documents(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_known(command_lines(document))


def require_known(commands: Iterable[list[str]]) -> None:
    """Check that `vocsep` and `python -m flows` know these commands and their options."""
    wrong = []
    for program, *arguments in commands:
        try:
            if program == "vocsep":
                parse(vocsep.cli.main.app, arguments)
            elif program.startswith("python") and arguments[:2] == ["-m", "flows"]:
                for step in flows.cli.steps(arguments[2:]):
                    parse(flows.cli.app, step)
        except Exception as error:
            wrong.append(f"{shlex.join([program, *arguments])}: {error}")
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_make_knows_the_targets_of_the_documents(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variables = set(re.findall(r"\b[A-Z_]+\b", (ROOT / "Makefile").read_text("utf-8")))
    calls = {tuple(words[1:]) for words in command_lines(document) if words[0] == "make"}
    # The tests are run by make, too.
    environment = {name: value for name, value in os.environ.items() if name not in variables | {"MAKEFLAGS"}}
    for arguments in sorted(calls):
        command = ["make", "-n", *arguments]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        lines = result.stdout.replace("\\\n", " ")
        require_known(map(shlex.split, re.findall(r"^\.venv/bin/(vocsep .*|python -m flows .*)", lines, re.M)))
        assert {word.partition("=")[0] for word in arguments if "=" in word} <= variables


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_python_examples_compile_and_their_imports_are_there(document: Path) -> None:
    for block in blocks(document, "python"):
        tree = ast.parse(block)
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(list(imports), []), str(document), "exec"), {})
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vocsep":
                assert hasattr(vocsep, node.attr), node.attr


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """All of the code's syntax."""
    for folder in ("vocsep", "storage", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                yield path, node


def text(node: ast.AST) -> str:
    """The text of an expression, with `…` for what is put in; adjacent parts are one."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    parts = [text(part) if isinstance(part, ast.Constant) else "…" for part in getattr(node, "values", [node])]
    return re.sub("…+", "…", "".join(parts))


def messages() -> set[str]:
    """All text in the code."""
    return {text(node) for _, node in nodes() if isinstance(node, ast.JoinedStr | ast.Constant)}


def errors() -> set[str]:
    """Messages of errors that a user can fix, with `…` for what is put in, where they say more than that."""
    found = set()
    classes = [node for _, node in nodes() if isinstance(node, ast.ClassDef)]
    kinds = {"UserError"} | {one.name for one in classes if "UserError" in map(ast.unparse, one.bases)}
    for path, node in nodes():
        if not (isinstance(node, ast.Call) and node.args) or path.name == "errors.py":
            continue
        if ast.unparse(node.func) in kinds:
            found |= {text(one) for one in alternatives(node.args[0])}
        elif ast.unparse(node.func) == "one_line":
            found |= {f"{text(node.args[0])}: cannot be {text(one)}" for one in alternatives(node.args[1])}
    return {one for one in found if len(re.findall("[a-z]", one)) > 3}


def alternatives(node: ast.expr) -> list[ast.expr]:
    """Both values of a conditional expression, else the expression itself."""
    return [*alternatives(node.body), *alternatives(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def test_the_troubleshooting_guide_has_every_message_of_an_error_and_no_other() -> None:
    guide = (ROOT / "docs/guides/troubleshooting.md").read_text("utf-8")
    quoted = [
        one for cell in re.findall(r"^\| (`.*?`) \|", guide, re.MULTILINE) for one in re.findall("`([^`]+)`", cell)
    ]
    expected = errors()
    assert len(expected) > 150
    assert [one for one in sorted(expected) if not any(one.startswith(begin) for begin in quoted)] == []
    known = messages() | expected
    assert [begin for begin in quoted if not any(one.startswith(begin) for one in known)] == []


def test_measured_figures_come_from_the_kept_results() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    assert page == benchmarks.report.page()  # otherwise: make bench ARGS=--page
    card = (ROOT / "vocsep/models/bundled/README.md").read_text("utf-8")  # made with the model
    expected = (ROOT / "README.md").read_text("utf-8").partition("## What to expect")[2].partition("\n## ")[0]
    figures = re.findall(r"-?\d+\.\d\d|\d,\d{3}", expected)
    assert len(figures) >= 16
    assert [one for one in figures if not re.search(rf"(?<![\d.-]){one}(?!\d)", page + card)] == []


def test_versions_of_changelog_citation_and_package_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    assert citation["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_order_of_the_packages_is_that_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["vocsep"])
    listed = (ROOT / "docs/explanation/architecture.md").read_text("utf-8").partition("## The packages of `vocsep`")[2]
    lines = re.findall(r"^\d+\. (.*(?:\n {3}.*)*)", listed.partition("\n## ")[0], re.MULTILINE)
    names = {entry.stem for entry in (ROOT / "vocsep").iterdir()}
    found = [names & set(re.findall(r"`(\w+)`", line)) for line in lines]
    assert found == [set(layer.split(" | ")) for layer in layers]


def test_every_public_function_says_what_it_raises_and_shows_an_example() -> None:
    public = set(vocsep.__all__)
    found = {
        node.name: ast.get_docstring(node) or ""
        for path, node in nodes()
        if isinstance(node, ast.FunctionDef) and node.name in public and path.name == "step.py"
    }
    assert found.keys() == {name for name in public if name.islower() and name[0] != "_"}
    for name, docstring in found.items():
        assert "\nRaises\n" in docstring, name
        assert f"{name}(" in docstring.partition("\nExamples\n")[2], name
