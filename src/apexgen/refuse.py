"""What a run is refused for before anything is opened or written: each in one line, with its remedy."""

from fractions import Fraction
from pathlib import Path

import torch

from apexgen.checkup import is_judged
from apexgen.config import Run, load_run
from apexgen.files import check_folder
from apexgen.objectives import Objective
from apexgen.objectives.base import rows_seen
from apexgen.trackers import check_trackers
from apexgen.train import open_objective, resolved
from apexgen.velocities import FALLBACK

# What may change between two starts of a run: how steps are taken, what is watched and kept, and what stops it.
HOW = (
    "batch", "accumulate", "redraw", "cache", "parallel", "processes", "reduce_gradients", "offload", "checkpointing",
    "compile",
)  # fmt: skip
WATCHED = ("evaluate_every", "evaluate_prompts", "keep_best", "track", "preview_every", "preview_prompts")
KEPT = ("save_every", "keep")
STOPS = ("bad_limit", "on_divergence")


def check_run(run: Run) -> None:
    """ValueError where a run's settings do not go together, or its folder can't be made or belongs to another run."""
    objective, folder = open_objective(run), Path(run.folder)
    if run.train.steps <= (least := objective.least_steps):
        raise ValueError(
            f"train.steps = {run.train.steps}: this objective takes {least} to prepare; "
            f"write train.steps = {2 * (least + 1)}"
        )
    refuse_together(run, objective)
    if getattr(objective, "fake_told", "shifted") == "other" and run.train.batch == 1:
        raise ValueError('objective.fake_told = "other" is another prompt of the batch; write train.batch = 2')
    _check_shares(run, objective)
    if run.train.keep_best == "one_step_score" and not is_judged(run):
        raise ValueError('train.keep_best = "one_step_score" is of the embedded model; write "one_step_distance"')
    check_trackers(run.train.track)
    if run.train.offload and not torch.cuda.is_available():
        raise ValueError("train.offload is for weights of an accelerator and here is none; write train.offload = false")
    check_folder(folder, "folder =")
    if run.data.cache is not None:
        check_folder(Path(run.data.cache), "data.cache =")
    if (folder / "config.toml").is_file():
        _check_begun(run, folder)


def _check_begun(run: Run, folder: Path) -> None:
    """ValueError where a folder's run was begun with settings that may not change."""
    # With every field of their objectives: a default that is written out is no other run.
    old, new = resolved(load_run(folder / "config.toml")), resolved(run)
    if old.train.samples != new.train.samples:
        raise ValueError(
            f"{folder} was begun with train.batch x train.accumulate x processes = {old.train.samples} samples a step, "
            f"not {new.train.samples}; write others of that product, or folder = another one"
        )
    for table in ("objective", "model", "data", "train"):
        before, now = (dict(getattr(one, table)) for one in (old, new))
        for key in before.keys() | now.keys():
            if before.get(key) != now.get(key) and key not in HOW + WATCHED + KEPT + STOPS:
                raise ValueError(
                    f"{folder} was begun with {table}.{key} = {before.get(key)!r}, not {now.get(key)!r}; write folder "
                    "= another one, or remove it to begin again"
                )


def refuse_together(run: Run, objective: Objective) -> None:
    """ValueError where a way to save memory or time does not go with the objective."""
    again = {"model.checkpointing": run.model.checkpointing, 'train.parallel = "fsdp"': run.train.parallel == "fsdp"}
    for setting in (setting for setting, chosen in again.items() if chosen):
        # What is computed, or gathered, again in the backward pass would be so with other weights than it was.
        if objective.needs_fake_network:
            raise ValueError(f'{setting} does not go with a second network; write objective.name = "apex"')
        if type(objective).blocks_with_heads is not Objective.blocks_with_heads:
            raise ValueError(f'{setting} does not go with a discriminator; write objective.name = "apex"')
    if run.train.parallel == "fsdp" and getattr(objective, "shift_learned", False):  # its weights are no shards
        raise ValueError(
            'train.parallel = "fsdp" does not go with a learned shift; write objective.shift_learned = false'
        )
    for setting in [setting for setting, chosen in (again | {"train.compile": run.train.compile}).items() if chosen]:
        if objective.derivative_step == 0:
            raise ValueError(f"{setting} does not go with forward mode; write objective.difference = {FALLBACK}")
    if objective.derivative_step and run.model.weights != "float32":
        raise ValueError(
            f'model.weights = "{run.model.weights}" is too coarse for objective.difference; write '
            'model.weights = "float32", or objective.difference = 0.0'
        )
    if objective.derivative_step == 0 and run.model.weights == "4bit":  # its kernel drops tangents, and says nothing
        raise ValueError('model.weights = "4bit" does not go with forward mode; write model.weights = "8bit"')


def _check_shares(run: Run, objective: Objective) -> None:
    """ValueError where the share of a step that a term sees is all of it, or not the same in every process."""
    train, count = run.train, run.train.processes or 1
    alike = count > 1 and train.parallel == "fsdp"  # a process without a term would not gather the weights for it
    for name, share in objective.term_shares.items():
        seen = rows_seen(share, train.samples)
        if share == 1 or (seen < train.samples and not (alike and seen % count)):
            continue
        why = "all of it" if seen == train.samples else f"{seen} in {count} processes, which must see as many each"
        least = Fraction(share * train.batch).limit_denominator(64).denominator
        raise ValueError(
            f"objective.{name} = {share:g} of the samples of a step, {train.samples}, is {why}; "
            f"write train.accumulate = {least}, or objective.{name} = 1.0"
        )
