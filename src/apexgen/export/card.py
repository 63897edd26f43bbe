"""The model card: what a folder holds, and the exact lines that sample it in stock diffusers."""

from math import prod
from pathlib import Path
from typing import Any

from apexgen.backbones.diffusion import WEIGHTS
from apexgen.backbones.header import read_header
from apexgen.backbones.hub import public_name
from apexgen.backbones.task_lora import PEFT, TASK, peft_scale
from apexgen.scenes.pipeline import FOLDER
from apexgen.student import ADAPTER, Student

LARGE = 1e9  # weights, beyond which nobody draws in float32
CHANGING = ("num_inference_steps", "sigmas")  # with the number of steps


def write_card(student: Student, base: Path, lora: str | None, scheduler: str, folder: Path) -> None:
    """Write folder/README.md. base: the folder of the pipeline it came from; lora: the LoRA's file, if there is one."""
    name, kind = public_name(base), ", lora" if lora else ""
    text = f"""---
library_name: diffusers
tags: [text-to-image, one-step, apexgen{kind}]
---
# A one-step generator made by apexgen

From {name}, {student.backbone.family}; {_size(student)}. Run in this folder:

```python
{snippet(student, base, lora, scheduler, card_type(base))}```

Guidance stays off: it is inside the student.{_told(student)}
"""
    (folder / "README.md").write_text(text)


def card_type(base: Path) -> str:
    """The torch type to open a pipeline in: "bfloat16" where its network is published so or large, else "float32"."""
    files = [file for name in WEIGHTS for file in sorted((base / "transformer").glob(name))]
    entries = [entry for file in files for entry in read_header(file).tensors.values()]
    sizes = [prod(entry.shape) for entry in entries]
    largest = entries[sizes.index(max(sizes))]
    return "bfloat16" if largest.kind == "BF16" or sum(sizes) > LARGE else "float32"


def snippet(student: Student, base: Path, lora: str | None, scheduler: str, dtype: str) -> str:
    """Python that draws a picture, on a GPU where there is one; the number of steps is its to change."""
    name = type(student.backbone.pipeline).__name__
    arguments = student.backbone.pipeline_arguments(1, guidance=1.0)
    constant = "\n".join(f"    {key}={value!r}," for key, value in arguments.items() if key not in CHANGING)
    if lora:
        opened = f"""{_naming(base)}
pipe = {name}.from_pretrained(base, torch_dtype=torch.{dtype}).to(device)
{_loading(student, lora)}
pipe.scheduler = {scheduler}.from_pretrained("scheduler")"""
    else:
        opened = f'pipe = {name}.from_pretrained(".", torch_dtype=torch.{dtype}).to(device)'
    return f"""import torch
from diffusers import {name}{f", {scheduler}" if lora else ""}

device = "cuda" if torch.cuda.is_available() else "cpu"
{opened}
steps = 1  # or 2, or 4{_seed(scheduler)}
image = pipe(
    "a photo of a red circle",
    num_inference_steps=steps,
    sigmas=[1 - step / steps for step in range(steps)],
{constant}
    generator=torch.Generator().manual_seed(0),
).images[0]
image.save("picture.png")
"""


def _naming(base: Path) -> str:
    """The line that says where the base is; a folder's path on this machine would be none of the reader's."""
    if base == FOLDER:
        return "from apexgen.scenes.pipeline import FOLDER as base  # the embedded pipeline"
    name = public_name(base)
    return f"base = {name!r}" + ("" if "/" in name else "  # write the path of this pipeline's folder here")


def _loading(student: Student, lora: str) -> str:
    """The lines that load the student's LoRA, after the one it was distilled on top of."""
    if student.backbone.task_lora is None:
        return f'pipe.load_lora_weights(".", weight_name={lora!r})'
    loading, scales = f"pipe.load_lora_weights(task, adapter_name={TASK!r})", ""
    if (scale := peft_scale(student.backbone.task_lora)) is not None:
        prefix = PEFT.removesuffix(".")
        told = f'".", weight_name=task, prefix={prefix!r}, adapter_name={TASK!r}'
        loading, scales = f"pipe.transformer.load_lora_adapter({told})", f", [{scale!r}, 1.0]"
    return f"""task = {student.backbone.task_lora.name!r}  # the LoRA it was distilled on top of
{loading}
pipe.load_lora_weights(".", weight_name={lora!r}, adapter_name={ADAPTER!r})
pipe.set_adapters([{TASK!r}, {ADAPTER!r}]{scales})"""


def _seed(scheduler: str) -> str:
    """The line that seeds what the scheduler draws between steps: most pipelines do not hand it their generator."""
    return "\ntorch.manual_seed(0)  # of the noise between steps" if scheduler == "FlowMatchLCMScheduler" else ""


def _size(student: Student) -> str:
    return f"a LoRA of rank {student.rank}" if student.mode == "lora" else "every weight tuned"


def _told(student: Student) -> str:
    """What the family's call says beside that."""
    arguments: dict[str, Any] = student.backbone.pipeline_arguments(1, guidance=1.0)
    guided = getattr(student.backbone.network.config, "guidance_embeds", False)
    return f" The network reads guidance_scale={arguments['guidance_scale']} as it did in training." if guided else ""
