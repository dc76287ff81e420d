"""Variables that every process of the flows needs."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import flows
from flows.environment import PREFECT_TOML, no_proxy_for_loopback
from vocsep.paths import SERVE

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def _no_variables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (*PROXIES, "NO_PROXY", "no_proxy"):
            patch.setenv(name, "")  # what the test sets is undone, too
            patch.delenv(name)
        yield


def proxied(host: str) -> bool:
    """Whether urllib, and websockets with it, would ask the proxy."""
    return not urllib.request.proxy_bypass(host)


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize(
    "proxy",
    [
        "http://127.0.0.1:1",
        "127.0.0.1:1",
        "socks5://127.0.0.1:1",
        "socks5h://u:p@h:1",
        "socks4://h:1",
        "h:port",
        "nonsense://",
    ],
)
def test_loopback_is_never_asked_through_a_proxy(name: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, proxy)
    no_proxy_for_loopback()
    assert not any(map(proxied, ("127.0.0.1:4200", "localhost:4200", "::1")))
    with httpx.Client() as client:
        for url in ("http://127.0.0.1:4200/api", "http://localhost:4200", "https://127.0.0.1", "http://[::1]:4200"):
            assert client._transport_for_url(httpx.URL(url)) is client._transport


@pytest.mark.parametrize(
    ("variable", "held"), [("no_proxy", "a.example, b.example"), ("NO_PROXY", "a.example,b.example,127.0.0.1")]
)
def test_hosts_that_the_user_names_stay(variable: str, held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, held)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    no_proxy_for_loopback()
    no_proxy_for_loopback()
    assert urllib.request.getproxies()["http"] == "http://proxy.example:3128"
    assert [proxied(host) for host in ("a.example", "b.example", "c.example", "127.0.0.1")] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("odd", ["[::1]", "[::1]:4200", "fd00::/8", "a.example:port", "b\u00fccher.example", "a b"])
def test_host_that_cannot_be_understood_costs_the_others_nothing(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", f"a.example,{odd},b.example")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    no_proxy_for_loopback()
    assert not any(map(proxied, ("a.example", "b.example", "127.0.0.1", "::1")))
    with httpx.Client() as client:
        assert client._transport_for_url(httpx.URL("http://[::1]:4200")) is client._transport


def test_no_proxy_for_all_hosts_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    no_proxy_for_loopback()
    with httpx.Client() as client:
        assert client._transport_for_url(httpx.URL("http://c.example")) is client._transport


def test_what_serve_leaves_in_the_folder_is_none_of_gits_business() -> None:
    root = Path(flows.__file__).parents[1]
    ignored = (root / ".gitignore").read_text().split()
    assert f"/{PREFECT_TOML}" in ignored
    assert f"/{SERVE.parts[0]}/" in ignored


def test_importing_the_flows_leaves_the_logging_of_a_program_as_it_is(tmp_path: Path) -> None:
    names = [path.stem for path in Path(flows.__file__).parent.glob("[a-z]*.py") if path.stem != "worker_session"]
    program = (
        "import importlib, logging, sys\n"
        "import prefect\n"
        "for name in sys.argv[1:]: importlib.import_module(f'flows.{name}')\n"
        "loggers = [logging.getLogger(name) for name in ('vocsep', 'prefect.engine', 'prefect.flow_runs')]\n"
        "assert loggers[0].level == logging.NOTSET\n"
        "filters = [one for logger in loggers for one in logger.filters]\n"
        "assert not [one for one in filters if getattr(one, '__module__', '').startswith('flows')], filters\n"
    )
    command = [sys.executable, "-c", program, *names]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
