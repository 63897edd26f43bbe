"""The settings of a run's optimisation."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from apexgen.config.table import Table

Decay = Annotated[float, Field(ge=0, lt=1)]


class Train(Table):
    """The optimisation."""

    steps: int = Field(1000, ge=1)
    batch: int = Field(32, ge=1)  # of each process
    accumulate: int = Field(1, ge=1)  # batches a step: their gradients are averaged; memory is that of one
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"  # 8bit: its moments in a quarter of the memory
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0)  # largest norm of the gradient
    on_divergence: Literal["stop", "skip"] = "stop"  # at a loss or gradient that is not finite; skip: a few in a row
    warmup: int = Field(20, ge=0)  # steps of linear rise of the learning rate
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after it: a fall to zero at the last step, or none
    ema: float = Field(0.99, ge=0, lt=1)  # decay of the average that is sampled and exported
    seed: int = Field(0, ge=0, lt=2**40)  # generators take 63 bits: seed * 1_000_003 + a step
    # Over the processes of torchrun or accelerate: each has all weights, or a part of each; "ddp" unless given.
    parallel: Literal["ddp", "fsdp"] | None = None
    processes: int | None = Field(None, ge=1)  # how many there are; a run of several writes it down
    # Of fsdp, when gradients are averaged over the processes and cut: once, and until then each process holds them
    # whole, or in every backward.
    reduce_gradients: Literal["step", "term"] = "step"
    offload: bool = False  # of fsdp: weights, gradients and optimizer in the processor's memory
    compile: bool = False  # the network's blocks, by torch.compile: a slow first step, faster ones after it
    save_every: int = Field(200, ge=1)
    preview_every: int = Field(200, ge=1)
    preview_prompts: int = Field(6, ge=1)
    keep: int = Field(2, ge=1)  # newest checkpoints kept
    # The averaged student in one step on prompts of its own, every so many steps; no evaluation unless given.
    evaluate_every: int | None = Field(None, ge=1)
    evaluate_prompts: int | None = Field(None, ge=1)  # 24 unless given, each from two noises
    # Also keep the checkpoint that was best in an evaluation: of the highest score, or the least distance.
    keep_best: Literal["one_step_score", "one_step_distance"] | None = None
    track: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()  # where else what is logged goes

    @property
    def samples(self) -> int:
        """Records that a step sees, of all processes."""
        return self.batch * self.accumulate * (self.processes or 1)

    @model_validator(mode="before")
    @classmethod
    def _resolve_evaluation(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        if table.get("evaluate_every") is not None:
            return {"evaluate_prompts": 24} | table
        for name in ("evaluate_prompts", "keep_best"):
            if table.get(name) is not None:
                raise ValueError(f"{name} is of evaluations; remove it, or write evaluate_every = 200")
        return table

    @model_validator(mode="after")
    def _check_parallel(self) -> "Train":
        if self.offload and self.parallel != "fsdp":
            raise ValueError('offload is of sharded weights; remove it, or write parallel = "fsdp"')
        if self.reduce_gradients != "step" and self.parallel != "fsdp":
            raise ValueError('reduce_gradients = "term" is of sharded weights; remove it, or write parallel = "fsdp"')
        for name, wanted in (("optimizer", "adamw"), ("compile", False)):
            if self.parallel == "fsdp" and getattr(self, name) != wanted:
                right = f'"{wanted}"' if isinstance(wanted, str) else "false"
                raise ValueError(f'parallel = "fsdp" does not go with this {name}; write {name} = {right}')
        return self
