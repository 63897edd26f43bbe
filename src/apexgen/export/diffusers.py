"""A LoRA folder for stock diffusers: weights, scheduler config, card; reopened and compared before it is trusted.

Keys are `transformer.<module>.lora_A|lora_B.weight` with scale 1 (alpha = rank), the one format that every family's
loader reads with the right scale. A fully tuned student is exported as a whole pipeline folder instead.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from apexgen.backbones.diffusion import open_pipeline
from apexgen.backbones.task_lora import LORA_FILE, SCHEDULER, TASK, count_adapted, load_task_lora
from apexgen.export.card import write_card
from apexgen.export.layers import lora_layers, lora_modules
from apexgen.export.merged import merged_weights, write_pipeline
from apexgen.export.scheduler import stock_scheduler
from apexgen.files import whole_folder
from apexgen.student import ADAPTER, Student


def export_student(student: Student, base: Path, target: Path, renoises: bool = False, merge: bool = False) -> Path:
    """Write the averaged student to the folder `target`, whole or not at all; returns it.

    renoises: its objective draws fresh noise between steps. merge: a LoRA too becomes a whole pipeline.
    ValueError for a student with a second time, which no stock pipeline can tell its network.
    """
    refuse_second_time(student.backbone.second is not None)
    is_lora = student.mode == "lora" and not merge
    scheduler = stock_scheduler(student.backbone, renoises)
    with whole_folder(target) as partial:
        with student.averaged():
            if is_lora:
                _write_lora(student, partial, type(scheduler).__name__)
            else:
                write_pipeline(student.backbone.network, merged_weights(student), scheduler, base, partial)
        scheduler.save_pretrained(partial / "scheduler")
        write_card(student, base, LORA_FILE if is_lora else None, type(scheduler).__name__, partial)
    return target


def refuse_second_time(has_one: bool) -> None:
    """ValueError for a student that a stock pipeline could not open."""
    if has_one:
        raise ValueError(
            "the objective needs a second time, which no stock pipeline knows: use apexgen train and apexgen sample, "
            'or write objective.name = "apex"'
        )


def _write_lora(student: Student, folder: Path, scheduler: str) -> None:
    pipeline, layers = type(student.backbone.pipeline), lora_layers(student)
    told = {
        "transformer.r": student.rank,
        "transformer.lora_alpha": student.rank,
        # By their whole names: the family's short ones may fit a module that was left out.
        "transformer.target_modules": sorted(lora_modules(layers)),
        "transformer.rank_pattern": {},  # diffusers 0.36 and 0.37 look for it
    }
    # The file may leave its folder, and the scheduler there: its own metadata names that too.
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(told), SCHEDULER: scheduler}
    pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=layers,
        weight_name=LORA_FILE,
        save_function=lambda weights, file: save_file(weights, file, metadata=metadata),
    )


def open_exported(folder: Path, base: Path, task_lora: Path | None = None) -> Any:
    """Open an exported folder with stock diffusers alone: the base pipeline, the LoRA, the scheduler.

    With the user's own LoRA beside the student's, where it was distilled on top of one.

    Raises ValueError when the file's LoRA did not take effect on every module it names.
    """
    import diffusers
    from safetensors import safe_open

    is_lora = (folder / LORA_FILE).is_file()
    pipeline = open_pipeline(base if is_lora else folder)
    name = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    pipeline.scheduler = getattr(diffusers, name).from_pretrained(folder, subfolder="scheduler")
    if is_lora:
        if task_lora is not None:
            load_task_lora(pipeline, task_lora)
        pipeline.load_lora_weights(folder, weight_name=LORA_FILE, adapter_name=ADAPTER)
        if task_lora is not None:
            pipeline.set_adapters([TASK, ADAPTER])
        with safe_open(folder / LORA_FILE, framework="pt") as file:
            named = sum(key.endswith("lora_A.weight") for key in file.keys())
        if (loaded := count_adapted(pipeline.transformer, ADAPTER)) != named:
            raise ValueError(f"{folder / LORA_FILE}: {loaded} of {named} modules took effect")
    return pipeline
