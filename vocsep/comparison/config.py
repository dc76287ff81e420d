"""What a comparison of systems is asked to do."""

from pydantic import Field

from vocsep.config import Settings
from vocsep.models.objective_config import Objective
from vocsep.patches.sampling import Augmentation
from vocsep.training.config import TrainConfig
from vocsep.training.settings_files import system_names


class ComparisonConfig(Settings):
    """What is compared, and how long each system is trained."""

    systems: tuple[str, ...] = Field(
        default=tuple(system_names()), description="Systems by name, or YAML files of settings."
    )
    ladder: bool = Field(
        default=True, description="Also remove the problems in turn, from project to notebook, and each alone."
    )
    seeds: int = Field(default=3, ge=1, description="Number of seeds per system: 0, 1, and so on.")
    steps: int = Field(default=400, ge=1, description="Training steps of every run.")
    batch_size: int = Field(default=16, ge=1, description="Patches per step.")
    width: int = Field(default=8, ge=1, description="Feature maps of the network's first block.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Highest learning rate.")
    validations: int = Field(default=5, ge=1, description="Points of every learning curve.")

    def training(self, objective: Objective, seed: int) -> TrainConfig:
        """Settings of one run: the plain loop, mono, that remixes but changes nothing else."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            network="unet",
            width=self.width,
            validations=self.validations,
            seed=seed,
            objective=objective,
            channels=1,
            dropout=0.5,
            ema=0.0,
            augmentation=Augmentation(gain=0, swap=0, pitch=0, tempo=0),
            shown_songs=0,
        )
