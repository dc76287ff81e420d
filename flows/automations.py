"""What the server does by itself: runs whose heart stopped beating, since process and worker died, come to an end."""

from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

NAME = "vocsep: end runs that died"
TAG = "vocsep"

# Runs of the deployments beat every 30 s, which is Prefect's least (PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml).
SILENCE_SECONDS = 120

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def dead_runs_automation() -> Automation:
    """Runs of vocsep's deployments that are silent for `SILENCE_SECONDS`, and have not ended, become Crashed."""
    return Automation(
        name=NAME,
        description="A run whose process and worker both died would stay Running for ever.",
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
                message=f"No sign of life for {SILENCE_SECONDS} s: the process and its worker died. What was finished "
                "stays; see that a worker runs (`make serve`), then `prefect flow-run retry` with this run's id.",
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
