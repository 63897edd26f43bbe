"""The settings of a run's optimisation."""

from typing import Literal

from pydantic import Field

from apexgen.config.table import Table


class Train(Table):
    """The optimisation."""

    steps: int = Field(1000, ge=1)
    batch: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)  # batches a step: their gradients are averaged; memory is that of one
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0)  # largest norm of the gradient
    on_divergence: Literal["stop", "skip"] = "stop"  # at a loss or gradient that is not finite; skip: a few in a row
    warmup: int = Field(20, ge=0)  # steps of linear rise of the learning rate
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after it: a fall to zero at the last step, or none
    ema: float = Field(0.99, ge=0, lt=1)  # decay of the average that is sampled and exported
    seed: int = 0
    save_every: int = Field(200, ge=1)
    preview_every: int = Field(200, ge=1)
    preview_prompts: int = Field(6, ge=1)
    keep: int = Field(2, ge=1)  # newest checkpoints kept
