"""A run file from one of the APEX authors' YAML files, https://github.com/LINs-lab/APEX: sections model, data, method,
sample and train.

What has an equal here is translated; what has none is named in a comment with what stands in its place.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import tomli_w
import yaml

from apexgen.config import Data, Train, validate
from apexgen.encode import count_records
from apexgen.progress import working
from apexgen.start.choices import FAMILIES
from apexgen.train import open_objective

MODELS = {"qwenimage": "qwen-image", "sd35": "sd3", "sd3": "sd3", "zimage": "z-image", "flux": "flux", "sana": "sana"}
HUB = {name: FAMILIES[family].path for name, family in MODELS.items()} | {
    "sd35": "hub:stabilityai/stable-diffusion-3.5-medium",  # of the same pipeline class as 3, and another model
}
EQUAL = {
    "model.model_path": "model.path",
    "model.path": "model.path",
    "model.lora_rank": "model.rank",
    "data.width": "model.size",
    "data.height": "model.size",
    "train.seed": "train.seed",
    "train.grad_accumulation_steps": "train.accumulate",
    "train.micro_batch_size": "train.batch",
    "train.lr": "train.learning_rate",
    "train.betas": "train.betas",
    "train.max_grad_norm": "train.clip",
    "train.output_dir": "folder",
    "method.estimate_order": "objective.order",
    "method.dist_match_cof": "objective.rectify_weight",
}
NUMBERS = {"train.lr", "train.max_grad_norm", "method.dist_match_cof"}  # which YAML may read as words, as it does 1e-4
INSTEAD = {
    "model.model_name": "the pipeline's folder says which family it is",
    "model.type": "the pipeline's folder says which family it is",
    "model.in_chans": "the pipeline's folder says it",
    "model.aux_time_embed": "twin_flow gives the network a second time; objective.name = \"apex\" needs none",
    "model.lora_alpha": "alpha is the rank: the scale is 1",
    "model.lora_target_modules": "model.targets, empty for the family's own",
    "data.train_dirs": "data.source for one folder, data.mixture for several",
    "method.method_type": 'objective.name = "twin_flow" is what their code computes; "apex" is the paper\'s',
    "method.transport_type": "linear is the only one",
    "method.consistc_ratio": "1 is the only one: r from 0 to t",
    "method.enhanced_ratio": "objective.guidance = 1 + theirs, or theirs where there are no pictures; 1 at least",
    "method.enhanced_range": "guidance holds at all times; \"apex\" and \"dmd\" have objective.guidance_until",
    "method.ema_decay_rate": "train.ema, from 0 to below 1",
    "method.time_dist_ctrl": "times are uniform",
    "method.loss_func_type": "twin_flow's loss is their robust one; its floor is objective.floor",
    "method.use_image_free": "\"apex\" trains from prompts alone; twin_flow reads pictures",
    "sample.ckpt": "the newest checkpoint is drawn with",
    "sample.cfg_scale": "apexgen sample --guidance 1, the default",
    "sample.cfg_interval": "apexgen sample --guidance 1, the default",
    "sample.sampling_steps": "apexgen sample --steps",
    "sample.stochast_ratio": "the objective says whether fresh noise is drawn between steps",
    "sample.extrapol_ratio": "there is no extrapolation",
    "sample.sampling_order": "the order is 1",
    "sample.time_dist_ctrl": "times are evenly spaced",
    "sample.rfba_gap_steps": "times are evenly spaced from 1",
    "sample.sampling_style": "apexgen sample --steps",
    "train.load_checkpoint_path": "the same command goes on from the newest checkpoint of its folder",
    "train.num_train_epochs": "train.steps; the data is not here to count; --dry-run tells how many epochs they are",
    "train.optimizer": "AdamW",
    "train.weight_decay": "0",
}  # fmt: skip


def translate(file: Path) -> str:
    """A run file, which loads, from a YAML file; ValueError, one line, where it is missing, broken, or not theirs."""
    keys = _read(file)
    run: dict[str, Any] = {"objective": {"name": "twin_flow"}, "model": {}, "data": {}, "train": {}}
    for key, value in keys.items():
        if key in EQUAL and value is not None:
            table, _, name = EQUAL[key].rpartition(".")
            (run[table] if table else run)[name] = _number(value) if key in NUMBERS else value
    width, height = keys.get("data.width"), keys.get("data.height")
    if width is not None and height is not None and width != height:
        run["model"]["size"] = f"{width}x{height}"
    also = _translate_more(keys, run)
    _check(run, file)
    return _text(file, {key: value for key, value in keys.items() if key not in also}, run)


def _number(written: Any) -> Any:
    """A number that YAML may have read as a word; anything else as it is, for the check to name."""
    try:
        return float(written)
    except (TypeError, ValueError):
        return written


def _translate_more(keys: dict[str, Any], run: dict[str, Any]) -> set[str]:
    """What is put in other words here; the keys of theirs that it was done for."""
    done, folders = set(), keys.get("data.train_dirs") or []
    if isinstance(folders, list) and folders:
        one = len(folders) == 1
        run["data"] |= {"source": folders[0]} if one else {"mixture": [{"source": folder} for folder in folders]}
        done.add("data.train_dirs")
    decay, targets = keys.get("method.ema_decay_rate"), _targets(keys.get("model.lora_target_modules"))
    if isinstance(decay, int | float) and 0 <= decay < 1:
        run["train"]["ema"] = decay
        done.add("method.ema_decay_rate")
    if targets:
        run["model"]["targets"] = targets
        done.add("model.lora_target_modules")
    guidance = _guidance(keys)
    if guidance is not None:
        run["objective"]["guidance"] = guidance
        done.add("method.enhanced_ratio")
    steps = _steps(keys, folders, run["train"]) if done >= {"data.train_dirs"} else None
    if steps is not None:
        run["train"]["steps"] = steps
        done.add("train.num_train_epochs")
    return done


def _targets(written: Any) -> str | list[str]:
    """Their modules, which they write as one word with commas or as a list; none for anything else."""
    if written == "all-linear":
        return "all-linear"
    names = written.split(",") if isinstance(written, str) else written
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    return [name.strip() for name in names if name.strip()]


def _guidance(keys: dict[str, Any]) -> float | None:
    """The guidance that their ratio is; None where it is none.

    Their target is z - x + ratio (F_c - F_null), and z - x is F_c on average; with a frozen teacher and no pictures it
    is F_null + ratio (F_c - F_null).
    """
    ratio = keys.get("method.enhanced_ratio")
    if not isinstance(ratio, int | float):
        return None
    alone = keys.get("method.ema_decay_rate") == 1 and keys.get("method.use_image_free") is True
    guidance = round(ratio if alone else 1 + ratio, 6)
    return guidance if guidance >= 1 else None


def _steps(keys: dict[str, Any], folders: list[Any], train: dict[str, Any]) -> int | None:
    """How many steps of one process their epochs are; None where the data is not here to be counted."""
    epochs, usual = keys.get("train.num_train_epochs"), Train()
    samples = [train.get(name, getattr(usual, name)) for name in ("batch", "accumulate")]
    if not isinstance(epochs, int | float) or not all(isinstance(each, int) and each > 0 for each in samples):
        return None
    try:
        with working("counting the records"):
            records = sum(count_records(Data(source=str(folder))) for folder in folders)
    except (ValueError, OSError):
        return None
    return max(1, math.ceil(records * epochs / math.prod(samples)))


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"--from {file}: no such file")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no text, or no date
        raise ValueError(f"{file} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not {"model", "method", "train"} <= content.keys():
        raise ValueError(f"{file} is none of the authors' files: it needs the sections model, method and train")
    flat: dict[str, Any] = {}
    for section, table in content.items():
        flat |= (
            {f"{section}.{key}": value for key, value in table.items()} if isinstance(table, dict) else {section: table}
        )
    return flat


def _check(run: dict[str, Any], file: Path) -> None:
    try:
        open_objective(validate(run))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _text(file: Path, keys: dict[str, Any], run: dict[str, Any]) -> str:
    """The tables, then what was left out."""
    left = [key for key in keys if key not in EQUAL]
    written = {key: json.dumps(keys[key], default=str) for key in left}  # a date is no JSON
    known = [f"#   {key} = {written[key]}: {INSTEAD[key]}" for key in left if key in INSTEAD]
    unknown = [f"#   {key} = {written[key]}" for key in left if key not in INSTEAD]
    hub = HUB.get(re.sub("[^a-z0-9]", "", str(keys.get("model.model_name", "")).lower()))
    hint = [f'# model.path may also be "{hub}".'] if hub else []
    lines = [f"# Translated from {file.name}.", *hint, "", tomli_w.dumps(run)]
    lines += ["# Has no equal here; what stands in its place:", *known] if known else []
    lines += ["# Not known, and left out:", *unknown] if unknown else []
    return "\n".join(lines) + "\n"
