"""`serve`, running deployments and schedules, and `stop`: real server, work pool, worker and runs, on loopback."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError

import flows
from flows.serving import dead_runs
from flows.serving.daemon import TOKEN
from storage.files import read_json
from storage.store import SpectrogramStore
from tests.flows.conftest import QUIET, clean_environment
from tests.flows.prefect_api import found, last_step
from tests.forked import run_forked
from tests.helpers import beyond_loopback, free_port, listening

ROOT = Path(flows.__file__).parents[1]
SMALL = {"width": 2, "channels": 1, "batch_size": 2, "device": "cpu"}
LONG_TRAINING = {"training": {"steps": 1_000_000, "checkpoint_seconds": 0.2, **SMALL}}


class Served:
    """A folder in which `serve` was called."""

    def __init__(self, folder: Path, environment: dict[str, str], port: int) -> None:
        self.folder = folder
        self.environment = environment
        self.port = port
        self.api = f"http://127.0.0.1:{port}/api"

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def flows(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What `python -m flows ...` does."""
        return run_forked("flows.cli", *arguments, folder=self.folder, environment=self.environment)

    def processes(self) -> dict[int, str]:
        """Numbers and command lines of all that `serve` started, and of what those started."""
        token = self.token
        living = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get(TOKEN) == token:
                    living[process.pid] = " ".join(process.cmdline())
            except (psutil.Error, OSError):
                continue
        return living

    def kill(self, keep: Collection[int] = ()) -> None:
        """Kill all that `serve` started, but for some."""
        for pid in set(self.processes()) - set(keep):
            with contextlib.suppress(psutil.NoSuchProcess):  # runs end by themselves, too
                psutil.Process(pid).kill()

    def remember(self) -> None:
        self.token = read_json(self.folder / "data/serve/serve.json")["token"]

    def request(self, method: Literal["GET", "POST", "DELETE"], path: str, body: Any = None) -> Any:
        """What the API answers; Prefect's own client asks again while SQLite is busy."""
        with SyncPrefectClient(self.api) as client:
            answer = client.request(method, path, json=body)  # type: ignore[arg-type]
            return answer.json() if answer.content else None

    def post(self, path: str, body: Any) -> Any:
        return self.request("POST", f"/{path}", body)

    def get(self, path: str) -> Any:
        return self.request("GET", f"/{path}")

    def start(self, flow: str, **config: Any) -> str:
        """Start a run of a deployment; returns its id."""
        deployment = self.get(f"deployments/name/{flow}/local")["id"]
        body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        run: str = self.post(f"deployments/{deployment}/create_flow_run", body)["id"]
        return run

    def runs(self, flow: str) -> list[dict[str, Any]]:
        return found(self.api, "flow_runs", flows={"name": {"any_": [flow]}})

    def log_of(self, run: str) -> list[str]:
        lines = self.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
        return [f"{line['name']}: {line['message']}" for line in lines]

    def state_of(self, run: str) -> tuple[str, str]:
        state = self.get(f"flow_runs/{run}")["state"]
        return state["type"], state["name"]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def served(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copyfile(ROOT / "prefect.yaml", folder / "prefect.yaml")
    (folder / "flows").symlink_to(ROOT / "flows")
    shutil.copytree(demo_root, folder / "songs")
    environment = {**clean_environment(), **QUIET, "PREFECT_HOME": str(folder / "data/prefect")}
    # These look only once a minute, every 30 s and every 10 s.
    environment["PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS"] = "2"
    environment["PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS"] = "3"
    environment["PREFECT_WORKER_QUERY_SECONDS"] = "1"
    served = Served(folder, environment, free_port())
    try:
        result = served.flows("serve", "--port", str(served.port))
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"http://127.0.0.1:{served.port}" in result.stdout
        assert "prefect deployment run" in result.stdout
        assert "the weekly retraining is off; turn it on with: make schedule" in result.stdout
        served.remember()
        # First of all, since it needs a minute to be seen to work.
        deployment = served.get("deployments/name/preprocess/local")["id"]
        schedule = {
            "schedule": {"cron": "* * * * *", "timezone": "UTC"},
            "parameters": {"config": {"dataset": "songs", "workers": 1}},
        }
        served.post(f"deployments/{deployment}/schedules", [schedule])
        yield served
    finally:
        served.flows("stop")


def test_every_flow_has_a_deployment_and_train_and_retrain_run_one_at_a_time() -> None:
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    deployed = {entry["entrypoint"]: entry for entry in content["deployments"]}
    held = set()
    for path in sorted((ROOT / "flows").glob("[a-z]*.py")):
        module = __import__(f"flows.{path.stem}", fromlist=["*"])
        held |= {
            f"flows/{path.name}:{name}"
            for name, value in vars(module).items()
            if isinstance(value, Flow) and value.fn.__module__ == module.__name__
        }
    assert held == set(deployed)
    assert all(entry["name"] == "local" and "vocsep" in entry["tags"] for entry in deployed.values())
    for flow in ("train", "retrain"):
        limit = deployed[f"flows/{flow}.py:{flow}"]["concurrency_limit"]
        assert limit == {"limit": 1, "collision_strategy": "ENQUEUE"}
    (weekly,) = deployed["flows/retrain.py:retrain"]["schedules"]
    assert weekly["active"] is False


def test_everything_that_serve_starts_listens_on_loopback_only(served: Served) -> None:
    processes = [psutil.Process(pid) for pid in served.processes()]
    assert ("127.0.0.1", served.port) in listening(processes)
    assert beyond_loopback(processes) == {}


@pytest.mark.parametrize("flow", ["preprocess", "train", "evaluate", "separate", "retrain", "compare"])
def test_unknown_parameters_are_refused_before_there_is_a_run(served: Served, flow: str) -> None:
    with pytest.raises(PrefectHTTPStatusError, match="nonsense") as refused:
        served.start(flow, nonsense=1)
    assert refused.value.response.status_code in (409, 422)
    # The schedule makes some itself.
    assert [run for run in served.runs(flow) if not run["auto_scheduled"]] == []


def test_wrong_value_from_another_terminal_is_refused_and_named(served: Served) -> None:
    # The folder says which server to use: the environment names none.
    result = served.command(
        "prefect", "deployment", "run", "train/local", "--param", 'config={"training": {"steps": 0}}'
    )
    assert result.returncode == 1
    assert "config.training.steps" in result.stdout + result.stderr
    assert served.runs("train") == []


def test_weekly_retraining_is_off_until_it_is_turned_on_and_then_has_runs_on_sundays(served: Served) -> None:
    (schedule,) = served.get("deployments/name/retrain/local")["schedules"]
    assert schedule["active"] is False
    assert served.runs("retrain") == []
    result = served.flows("schedule")
    assert result.returncode == 0, result.stderr
    assert "0 3 * * 0" in result.stdout
    wait_for(lambda: len(served.runs("retrain")) >= 3, "scheduled runs")
    times = sorted(datetime.fromisoformat(run["expected_start_time"]) for run in served.runs("retrain"))
    assert all((time.weekday(), time.hour, time.minute, time.tzinfo) == (6, 3, 0, UTC) for time in times)
    assert times[0] > datetime.now(UTC)
    assert times[1] - times[0] == timedelta(days=7)
    assert all(run["state"]["type"] == "SCHEDULED" for run in served.runs("retrain"))
    assert all(run["parameters"]["config"]["training"] == {"max_minutes": 60} for run in served.runs("retrain"))
    # Serving anew, with everything running, changes nothing and does not turn it off.
    started = read_json(served.folder / "data/serve/serve.json")
    result = served.flows("serve", "--port", str(served.port))
    assert result.returncode == 0, result.stdout + result.stderr
    assert read_json(served.folder / "data/serve/serve.json") == started
    assert {started["server"], started["worker"]} <= set(served.processes())
    assert served.get("deployments/name/retrain/local")["schedules"][0]["active"] is True
    assert "the weekly retraining is on; turn it off with: make unschedule" in result.stdout
    assert served.flows("schedule", "--off").returncode == 0
    assert served.get("deployments/name/retrain/local")["schedules"][0]["active"] is False


def test_cron_schedule_creates_runs_that_the_worker_runs(served: Served) -> None:
    def ended() -> list[dict[str, Any]]:
        return [run for run in served.runs("preprocess") if run["auto_scheduled"] and run["end_time"]]

    wait_for(lambda: bool(ended()), "the run of a minute")
    run = ended()[-1]
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert datetime.fromisoformat(run["expected_start_time"]).second == 0
    assert len(SpectrogramStore.open(served.folder / "data/spectrograms.zarr").manifest.tracks) == 6

    def lines_of_workers() -> int:
        return sum(line.startswith("vocsep.worker: write_song: ") for line in served.log_of(run["id"]))

    wait_for(lambda: lines_of_workers() == 6, "the lines of the Dask workers in the run's log")
    deployment = served.get("deployments/name/preprocess/local")
    (schedule,) = deployment["schedules"]
    served.request("DELETE", f"/deployments/{deployment['id']}/schedules/{schedule['id']}")


def test_mistake_in_a_run_is_one_line_in_its_log(served: Served) -> None:
    run = served.start("evaluate", dataset="songs", model="7")
    wait_for(lambda: served.state_of(run)[0] == "FAILED", "the end of the run")
    message = served.get(f"flow_runs/{run}")["state"]["message"]
    hint = f"prefect.flow_runs: What was finished stays. Fix the cause, then resume with: prefect flow-run retry {run}"
    wait_for(lambda: hint in served.log_of(run), "the line that says what to do")
    log = "\n".join(served.log_of(run))
    assert log.count(message) == 1, log
    assert not [word for word in ("Traceback", "NoneType", "unexpected") if word in log], log
    assert "Traceback" not in (served.folder / "data/serve/worker.log").read_text()


def test_killed_queued_cancelled_and_retried_trainings_go_on_with_one_run(served: Served) -> None:
    before = served.processes()
    runs = served.folder / "data/runs"

    def wait_for_steps(run: str) -> None:
        wait_for(lambda: served.state_of(run)[0] == "RUNNING", "the run to begin")
        step = last_step(runs)
        wait_for(lambda: last_step(runs) > step + 10, "ten steps more")

    first = served.start("train", **LONG_TRAINING)
    wait_for_steps(first)
    (folder,) = runs.iterdir()

    second = served.start("train", **LONG_TRAINING)
    wait_for(lambda: served.state_of(second)[1] == "AwaitingConcurrencySlot", "the second one to be queued")
    assert served.state_of(first) == ("RUNNING", "Running")

    served.kill(keep=before)
    wait_for(lambda: served.state_of(first)[0] == "CRASHED", "the worker to notice")
    hint = f"resume with: prefect flow-run retry {first}"
    wait_for(lambda: any(hint in line for line in served.log_of(first)), "the line that says what to do")

    # The one that waited was not lost, and takes up what the killed one left.
    wait_for_steps(second)
    begun = "vocsep.training.fit: resuming after step "
    wait_for(lambda: any(line.startswith(begun) for line in served.log_of(second)), "the library's line")
    result = served.command("prefect", "flow-run", "cancel", second)
    assert result.returncode == 0, result.stdout + result.stderr
    wait_for(lambda: served.state_of(second)[0] == "CANCELLED", "the end of the second")
    assert served.get(f"flow_runs/{second}")["state"]["message"].startswith("stopped by SIGTERM after step ")
    hint = f"resume with: prefect flow-run retry {second}"
    wait_for(lambda: served.log_of(second)[-1].endswith(hint), "the line that says what to do")
    assert not [line for line in served.log_of(second) if "Traceback" in line or "Crash" in line]
    wait_for(lambda: set(served.processes()) <= set(before), "the end of its processes")
    assert read_json(folder / "run.json")["status"] == "stopped"
    assert list((folder / "checkpoints").glob("step-*.json"))

    result = served.command("prefect", "flow-run", "retry", first)
    assert result.returncode == 0, result.stdout + result.stderr
    wait_for_steps(first)
    assert list(runs.iterdir()) == [folder]


def retry_training(served: Served, run: str) -> None:
    """Start a training again, and wait until it resumes."""
    step = last_step(served.folder / "data/runs")
    result = served.command("prefect", "flow-run", "retry", run)
    assert result.returncode == 0, result.stdout + result.stderr
    wait_for(lambda: last_step(served.folder / "data/runs") > step + 10, "ten steps more")


def test_runs_that_were_going_on_when_the_machine_went_down_are_ended_by_the_next_serve_and_can_be_retried(
    served: Served,
) -> None:
    (run,) = (one["id"] for one in served.runs("train") if one["state"]["type"] == "RUNNING")
    # A run of another worker on this machine continues.
    deployment = served.get("deployments/name/evaluate/local")["id"]
    other = served.post(f"deployments/{deployment}/create_flow_run", {"state": {"type": "RUNNING"}})["id"]
    assert served.state_of(other)[0] == "RUNNING"
    command = [sys.executable, "-c", "import time; time.sleep(3600)"]
    living = subprocess.Popen(command, env=served.environment | {"PREFECT__FLOW_RUN_ID": other})
    try:
        served.kill()
        result = served.flows("serve", "--port", str(served.port))
        assert result.returncode == 0, result.stdout + result.stderr
        served.remember()
        assert served.state_of(run) == ("CRASHED", "Crashed")
        assert "prefect flow-run retry" in served.get(f"flow_runs/{run}")["state"]["message"]
        assert served.state_of(other)[0] == "RUNNING"
    finally:
        living.kill()
        living.wait()
    # The place of its deployment is free again.
    retry_training(served, run)


def test_run_that_died_with_its_worker_is_ended_by_the_automation_and_can_be_retried(served: Served) -> None:
    (run,) = (one["id"] for one in served.runs("train") if one["state"]["type"] == "RUNNING")
    (held,) = served.post("automations/filter", {})
    assert held["name"] == dead_runs.NAME
    assert held["trigger"]["within"] == dead_runs.SILENCE_SECONDS
    # The same, but as quick as Prefect allows. Signs of life come every half minute; after one, it waits for the next.
    automation = dead_runs.dead_runs_automation().model_dump(mode="json", exclude={"id"})
    automation["trigger"]["within"] = 10
    quicker = served.post("automations/", automation | {"name": "quicker"})["id"]
    beats = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "occurred": {"since": datetime.now(UTC).isoformat()},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    wait_for(lambda: served.post("events/filter", {"filter": beats})["total"] > 0, "a sign of life")
    served.kill(keep=[read_json(served.folder / "data/serve/serve.json")["server"]])
    wait_for(lambda: served.state_of(run)[0] == "CRASHED", "the automation")
    message = served.get(f"flow_runs/{run}")["state"]["message"]
    assert message.startswith("No sign of life")
    served.request("DELETE", f"/automations/{quicker}")

    # What the message says to do.
    assert "make serve" in message
    result = served.flows("serve", "--port", str(served.port))
    assert result.returncode == 0, result.stdout + result.stderr
    served.remember()
    retry_training(served, run)


def test_stop_saves_the_training_and_ends_all_that_serve_started_and_nothing_else(served: Served) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "prefect worker"])
    try:
        (folder,) = (served.folder / "data/runs").iterdir()
        assert read_json(folder / "run.json")["status"] == "running"
        assert len(served.processes()) >= 3
        result = served.flows("stop")
        assert result.returncode == 0, result.stderr
        assert result.stdout == "stopped\n"
        assert served.processes() == {}
        assert other.poll() is None
        assert read_json(folder / "run.json")["status"] == "stopped"
        assert not (served.folder / "prefect.toml").exists()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", served.port)) != 0
        assert served.flows("stop").stdout == "nothing was served from this folder\n"
    finally:
        other.kill()
        other.wait()
    # Offline, and without a telemetry address to be found, nothing complained.
    for log in (served.folder / "data/serve").glob("*.log"):
        assert "telemetry" not in log.read_text()


def test_port_that_is_taken_is_one_line(served: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = served.flows("serve", "--port", str(port))
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: port {port} is taken by another program; ")
    assert result.stderr.count("\n") == 1
