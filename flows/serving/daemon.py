"""`serve` and `stop`: Prefect's server, a work pool, the deployments of `prefect.yaml` and a worker, on this machine.

All that is started carries a token in its environment, and so does everything that it starts in turn. `stop` ends the
processes that have the token of this folder's `serve`, and no others.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from flows.environment import PREFECT_TOML, PREFECT_TOML_MARK
from flows.serving import dead_runs
from flows.serving.embedded import HOST, api_url, is_healthy, is_listening, log_end, using, wait_until_healthy
from storage.calling import call
from storage.errors import UserError
from storage.files import read_json, write_atomically, write_json
from vocsep.config import load_yaml
from vocsep.paths import SERVE

POOL = "local"
RETRAIN = "retrain/local"
TOKEN = "VOCSEP_SERVE"
CONCURRENT_RUNS = 4
STOP_SECONDS = 300.0
"""A training saves itself after the step or the validation that it is in; an evaluation ends at once."""

_STATE = SERVE / "serve.json"
_WORKER_SECONDS = 600.0
_SETTINGS = {
    # Ended runs, with their logs and artifacts, go after 90 days, events after 7.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    # Prefect runs its own script to look at a crashed flow, and the folder of that script has a `storage` too.
    "PYTHONSAFEPATH": "1",
    # As `vocsep.memory.share_memory_among_threads`, for what Prefect starts.
    "MALLOC_ARENA_MAX": "1",
}


def serve(port: int) -> str:
    """Start what is not running, deploy, and wait until all of it is healthy; returns the server's address.

    Where all is running already, only the deployments are brought up to date. What is left of an earlier call, or
    served at another port, is ended first.

    Raises
    ------
    UserError
        If there is no `prefect.yaml`, the port is taken, or a part does not start.
    """
    deployments = _deployments()
    if _is_whole(port):
        with using(api_url(port)):
            _deploy(port, deployments)
    else:
        stop()
        if is_listening(port):
            other = call(f"serve PORT={port + 1}", f"serve --port {port + 1}")
            raise UserError(f"port {port} is taken by another program; name another one: {other}")
        try:
            _start(port, deployments)
        except BaseException:
            stop()
            raise
    return f"http://{HOST}:{port}"


def stop() -> bool:
    """End everything that `serve` started, runs first: they save what they have. Returns whether there was anything.

    A run that is told to end says so, as Failed or Crashed, and can be retried.
    """
    if PREFECT_TOML.is_file() and PREFECT_TOML.read_text(encoding="utf-8").startswith(PREFECT_TOML_MARK):
        PREFECT_TOML.unlink()
    found = _processes()
    worker = found.get(_state().get("worker", 0))
    if worker is not None:
        # Told to end itself, a worker kills what it runs. Paused, it leaves queued runs in the queue meanwhile.
        _pause_pool(True)
        runs = worker.children()
        _signal(runs, signal.SIGTERM)
        psutil.wait_procs(runs, timeout=STOP_SECONDS)
    server = found.get(_state().get("server", 0))
    _end([process for process in _processes().values() if process != server], grace_seconds=30)
    if worker is not None:
        _pause_pool(False)
    _end(list(_processes().values()), grace_seconds=60)
    _STATE.unlink(missing_ok=True)
    return bool(found)


def set_schedule(active: bool) -> str:
    """Turn the schedule of the retraining on or off; returns a line for people.

    Raises
    ------
    UserError
        If nothing is served.
    """
    port = _state().get("port")
    if port is None or not is_healthy(api_url(port)):
        raise UserError(f"no server is running: start it with `{call('serve', 'serve')}`")
    with using(api_url(port)), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(RETRAIN)
        for one in deployment.schedules:
            client.update_deployment_schedule(deployment.id, one.id, active=active)
        schedules = [one.schedule for one in deployment.schedules]
        times = ", ".join(f"{one.cron} ({one.timezone})" for one in schedules if isinstance(one, CronSchedule))
    return f"{RETRAIN} is {'on' if active else 'off'}: {times}"


def is_scheduled(port: int) -> bool:
    """Whether the schedule of the retraining is on, at the server that `serve` started."""
    with using(api_url(port)), get_client(sync_client=True) as client:
        return any(one.active for one in client.read_deployment_by_name(RETRAIN).schedules)


def _start(port: int, deployments: Path) -> None:
    SERVE.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(16)
    write_json(_STATE, {"token": token, "port": port})
    environment = {**os.environ, **_SETTINGS, TOKEN: token, "PREFECT_API_URL": api_url(port)}
    server = _launch("server", ["server", "start", "--host", HOST, "--port", str(port)], environment)
    wait_until_healthy(api_url(port), server, SERVE / "server.log")
    with using(api_url(port)):
        _make_pool()
        _pause_pool(False)
        _deploy(port, deployments)
        dead_runs.register()
        dead_runs.end_runs_without_process(POOL)
        name = f"vocsep-{token[:8]}"
        options = ["--pool", POOL, "--type", "process", "--name", name, "--limit", str(CONCURRENT_RUNS)]
        worker = _launch("worker", ["worker", "start", *options], environment)
        deadline = time.monotonic() + _WORKER_SECONDS
        while not _is_polling(name):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"the Prefect worker did not start{log_end(SERVE / 'worker.log')}")
            time.sleep(0.5)
    if not PREFECT_TOML.exists():
        write_atomically(PREFECT_TOML, f'{PREFECT_TOML_MARK}\n[api]\nurl = "{api_url(port)}"\n'.encode())


def _deployments() -> Path:
    """The `prefect.yaml` of the working directory, if it is vocsep's, to be changed there; else the package's own."""
    here, packaged = Path("prefect.yaml"), Path(__file__).parents[1] / "prefect.yaml"
    if here.is_file() and load_yaml(str(here)).get("name") == "vocsep":
        return here
    if packaged.is_file():
        return packaged
    raise UserError("prefect.yaml: not in this folder; call this from the folder of vocsep")


def _launch(name: str, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a part of Prefect that outlives this process; the log of the time before is kept next to the new one."""
    log = SERVE / f"{name}.log"
    if log.exists():
        log.replace(SERVE / f"{name}.before.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    write_json(_STATE, _state() | {name: process.pid})
    return process


def _make_pool() -> None:
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def _pause_pool(paused: bool) -> None:
    """Let no worker take runs from the pool, or let them again; does nothing where the server does not answer."""
    url = api_url(_state()["port"])
    with contextlib.suppress(httpx.HTTPError), using(url), get_client(sync_client=True) as client:
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=paused))


def _deploy(port: int, deployments: Path) -> None:
    """Create the deployments that a file names or bring them up to date; a schedule that was turned on stays on."""
    active = _active_schedules()
    # The steps in prefect.yaml take the folder from PWD, which a shell sets and a program need not.
    environment = {**os.environ, "PREFECT_API_URL": api_url(port), "PWD": str(Path.cwd())}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(deployments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    write_atomically(SERVE / "deploy.log", (done.stdout + done.stderr).encode())
    if done.returncode:
        raise UserError(f"{deployments}: cannot be deployed{log_end(SERVE / 'deploy.log')}")
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            for one in deployment.schedules:
                if (deployment.id, one.slug) in active and not one.active:
                    client.update_deployment_schedule(deployment.id, one.id, active=True)


def _active_schedules() -> set[tuple[UUID, str | None]]:
    with get_client(sync_client=True) as client:
        deployments = client.read_deployments()
    return {(one.id, schedule.slug) for one in deployments for schedule in one.schedules if schedule.active}


def _is_polling(name: str) -> bool:
    """Whether the worker of this name is at the pool."""
    with get_client(sync_client=True) as client:
        return name in [worker.name for worker in client.read_workers_for_work_pool(POOL)]


def _is_whole(port: int) -> bool:
    found, state = _processes(), _state()
    ours = state.get("port") == port and state.get("server") in found and state.get("worker") in found
    return ours and is_healthy(api_url(port))


def _state() -> dict[str, Any]:
    """What is known of the processes that `serve` started: token, port, and the numbers of server and worker."""
    state: dict[str, Any] = read_json(_STATE) if _STATE.is_file() else {}
    return state


def _processes() -> dict[int, psutil.Process]:
    """Living processes that carry the token, by their numbers."""
    token = _state().get("token")
    found = {}
    for process in psutil.process_iter() if token else ():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
    return found


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _end(processes: list[psutil.Process], grace_seconds: float) -> None:
    """Ask processes to end, and after a while make them."""
    _signal(processes, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=grace_seconds)
    _signal(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=grace_seconds)
