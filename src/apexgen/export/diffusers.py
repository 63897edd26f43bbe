"""A LoRA folder for stock diffusers: weights, scheduler config, card; reopened and compared before it is trusted.

Keys are `transformer.<module>.lora_A|lora_B.weight` with scale 1 (alpha = rank), the one format that every family's
loader reads with the right scale. A fully tuned student is exported as a whole pipeline folder instead.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from apexgen.backbones.diffusion import open_pipeline
from apexgen.backbones.task_lora import TASK, count_adapted, load_task_lora
from apexgen.generate import make_pictures
from apexgen.student import ADAPTER, Student

LORA_FILE = "pytorch_lora_weights.safetensors"


def export_student(student: Student, base: Path, target: Path) -> Path:
    """Write the averaged student to the folder `target`, whole or not at all; returns it.

    ValueError for a student with a second time, which no stock pipeline can tell its network.
    """
    refuse_second_time(student.backbone.second is not None)
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with student.averaged():
            if student.mode == "lora":
                _write_lora(student, partial)
            else:
                shutil.copytree(base, partial)
                student.backbone.network.save_pretrained(partial / "transformer")
        _write_scheduler(student, partial / "scheduler")
        (partial / "README.md").write_text(_card(student))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def refuse_second_time(has_one: bool) -> None:
    """ValueError for a student that a stock pipeline could not open."""
    if has_one:
        raise ValueError(
            "the objective needs a second time, which no stock pipeline knows: use apexgen train and apexgen sample, "
            'or write objective.name = "apex"'
        )


def _write_lora(student: Student, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    network, pipeline = student.backbone.network, type(student.backbone.pipeline)
    layers = get_peft_model_state_dict(network, adapter_name=ADAPTER)
    metadata = {
        "r": student.rank,
        "lora_alpha": student.rank,
        # By their whole names: the family's short ones may fit a module that was left out.
        "target_modules": sorted({name.rpartition(".lora_")[0] for name in layers}),
        "rank_pattern": {},  # diffusers 0.36 and 0.37 look for it
    }
    pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=layers,
        weight_name=LORA_FILE,
        transformer_lora_adapter_metadata=metadata,
    )


def _write_scheduler(student: Student, folder: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    FlowMatchEulerDiscreteScheduler(**student.backbone.scheduler_config).save_pretrained(folder)


def open_exported(folder: Path, base: Path, task_lora: Path | None = None) -> Any:
    """Open an exported folder with stock diffusers alone: the base pipeline, the LoRA, the scheduler.

    With the user's own LoRA beside the student's, where it was distilled on top of one.

    Raises ValueError when the file's LoRA did not take effect on every module it names.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler
    from safetensors import safe_open

    is_lora = (folder / LORA_FILE).is_file()
    pipeline = open_pipeline(base if is_lora else folder)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    if is_lora:
        if task_lora is not None:
            load_task_lora(pipeline, task_lora)
        pipeline.load_lora_weights(folder, weight_name=LORA_FILE, adapter_name=ADAPTER)
        if task_lora is not None:
            pipeline.set_adapters([TASK, ADAPTER])
        with safe_open(folder / LORA_FILE, framework="pt") as file:
            named = sum(key.endswith("lora_A.weight") for key in file.keys())
        loaded = count_adapted(pipeline.transformer, ADAPTER)
        if loaded != named:
            raise ValueError(f"{folder / LORA_FILE}: {loaded} of {named} modules took effect")
    return pipeline


def compare(student: Student, folder: Path, base: Path, prompts: Sequence[str], noise: Tensor, steps: int) -> float:
    """Largest difference, in [0, 1] pixel values, between our sampler's pictures and the stock pipeline's."""
    backbone = student.backbone
    condition = backbone.encode_text(prompts)
    ours = make_pictures(backbone, student.ema, condition, noise, steps)
    stock = open_exported(folder, base, backbone.task_lora)(
        prompt=list(prompts),
        latents=backbone.pack(noise).clone(),
        output_type="np",
        **backbone.pipeline_arguments(steps, guidance=1.0),
    ).images
    return float(np.abs(ours - stock).max())


def _load_lines(task_lora: Path | None) -> str:
    """The card's lines that load the student's LoRA, and the one it was distilled on top of."""
    if task_lora is None:
        return f'pipe.load_lora_weights("FOLDER", weight_name="{LORA_FILE}")\n'
    return (
        f'pipe.load_lora_weights("{task_lora.name}", adapter_name="{TASK}")\n'
        f'pipe.load_lora_weights("FOLDER", weight_name="{LORA_FILE}", adapter_name="{ADAPTER}")\n'
        f'pipe.set_adapters(["{TASK}", "{ADAPTER}"])\n'
    )


def _card(student: Student) -> str:
    """The model card, with the exact lines that run it."""
    name = type(student.backbone.pipeline).__name__
    arguments = student.backbone.pipeline_arguments(1, guidance=1.0)
    call = ",\n    ".join(f"{key}={value!r}" for key, value in arguments.items())
    load = _load_lines(student.backbone.task_lora) if student.mode == "lora" else ""
    opened = "BASE" if student.mode == "lora" else "FOLDER"
    return f"""---
library_name: diffusers
tags: [text-to-image, one-step, apexgen{", lora" if student.mode == "lora" else ""}]
---
# A one-step generator made by apexgen

```python
from diffusers import {name}, FlowMatchEulerDiscreteScheduler

pipe = {name}.from_pretrained("{opened}")
{load}pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained("FOLDER", subfolder="scheduler")
image = pipe(
    "a photo of a red circle",
    {call},
).images[0]
```

Guidance stays off: it is inside the student. Use 1, 2 or 4 steps.

```json
{json.dumps({"mode": student.mode, "rank": student.rank if student.mode == "lora" else None})}
```
"""
