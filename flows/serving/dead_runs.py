"""Runs whose process died without a word come to an end: a machine that went down leaves them as they last were."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import psutil
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.states import Crashed

from storage.calling import call

NAME = "vocsep: end runs that died"
TAG = "vocsep"

# Runs of the deployments beat every 30 s, which is Prefect's least (PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml);
# on a busy machine a few of them come late.
SILENCE_SECONDS = 300

_NEXT = (
    f"What was finished stays; see that a worker runs (`{call('serve', 'serve')}`), then `prefect flow-run retry` "
    "with this run's id."
)
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def dead_runs_automation() -> Automation:
    """Runs of vocsep's deployments that are silent for `SILENCE_SECONDS`, and have not ended, become Crashed."""
    return Automation(
        name=NAME,
        description="A run whose process and worker both died would stay Running forever.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _ENDS)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            # Other runs on this server may beat more slowly.
            match_related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"No sign of life for {SILENCE_SECONDS} s: the process and its worker died. {_NEXT}",
            )
        ],
    )


def register() -> None:
    """Have the server in use know the automation as it is here; one that it knows already stays, with what it saw."""
    wanted = AutomationCore(**dead_runs_automation().model_dump(exclude={"id"}))
    with get_client(sync_client=True) as client:
        same = False
        for held in client.read_automations_by_name(NAME):
            if not same and (held.trigger, held.actions) == (wanted.trigger, wanted.actions):
                same = True
            else:
                client.delete_automation(held.id)
        if not same:
            client.create_automation(wanted)


def end_runs_without_process(pool: str) -> None:
    """Unfinished runs of a work pool that have no process on this machine become Crashed.

    For a server that was just started: it has forgotten the signs of life that its automations wait for, and a run
    that stays Running keeps the place of its deployment. The server listens on loopback, so that every run is here.
    """
    living = set(_runs_with_process())
    going_on = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=going_on))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        )
        for run in runs:
            if str(run.id) not in living:
                message = f"The process of this run is gone: it was killed, or the machine went down. {_NEXT}"
                client.set_flow_run_state(run.id, Crashed(message=message))


def _runs_with_process() -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            run = process.environ().get(_RUN_VARIABLE)
            if run is not None and process.status() != psutil.STATUS_ZOMBIE:
                yield run
