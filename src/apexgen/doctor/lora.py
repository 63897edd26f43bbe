"""What a LoRA file, whoever trained it, does to a base model: what it covers, how strongly, and where it loads."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import safe_open

from apexgen.backbones.header import Header, read_header, refuse_quantised
from apexgen.doctor.base import Base, describe, open_empty, try_loading
from apexgen.doctor.names import Names, Pair, bare, sort_out
from apexgen.doctor.scale import BESIDE, read_told
from apexgen.export.comfyui import SUPPORTED, accepted_keys
from apexgen.scenes.pipeline import pipeline_folder

LISTED = 3  # names given of a list
COMFYUI_SPELLINGS = (
    "lora_A, lora_B",
    "lora_A.default, lora_B.default",
    "lora_down, lora_up",
    "lora.down, lora.up",
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found, line by line and by name."""

    lines: list[str]
    told: dict[str, Any]  # the same for programs
    loads: bool  # all of it, with the scale it asks for, in diffusers or in ComfyUI


@dataclass(frozen=True)
class Case:
    """A file's pairs beside the base's modules."""

    names: Names
    base: Base
    matched: dict[str, list[str]]  # the modules that a pair's key names
    fits: set[str]  # keys of those whose size fits too
    alphas: dict[str, float]
    asked: dict[str, float]  # the scale of each pair: alpha / rank
    source: str  # what beside its tensors tells of alpha

    @property
    def is_whole(self) -> bool:
        """Whether every pair has its place in the base, and there is nothing else."""
        return len(self.fits) == len(self.names.pairs) and not self.names.half and not self.names.strange


def examine(file: Path, folder: Path) -> Diagnosis:
    """Examine a LoRA file for the pipeline in `folder`, or the hub's, of which only the configuration is read.

    Raises ValueError, one line, for a file that is missing, pickled, cut short or no LoRA, quantised or not finite, and
    for a folder that is no pipeline of a known family.
    """
    header = read_header(file)
    names = sort_out(header.tensors)
    _refuse(file, header, names)
    pipeline = open_empty(pipeline_folder(str(folder)))
    case = _take_up(file, header, names, describe(pipeline))
    in_diffusers, diffusers_said = _in_diffusers(case, pipeline, file, header)
    in_comfyui, comfyui_said = _in_comfyui(case)
    told = {
        "trainer": names.trainer,
        "spelling": names.spelling,
        "ranks": sorted({pair.rank for pair in names.pairs}),
        "scales": sorted(set(case.asked.values())),
        "modules": len(names.pairs),
        "fit": len(case.fits),
        "moved": len({module for key in case.fits for module in case.matched[key]}),
        "pipeline": case.base.pipeline,
        "pipeline_modules": len(case.base.shapes),
        "diffusers": {"loads": in_diffusers, "said": diffusers_said},
        "comfyui": {"loads": in_comfyui, "said": comfyui_said},
        "kinds": _kinds(header),
        "text": names.text,
        "wrong": _faults(case),
    }
    return Diagnosis(_lines(told), told, in_diffusers or in_comfyui)


def _lines(told: dict[str, Any]) -> list[str]:
    """What `examine` tells, for people; of kinds and of a text encoder's part only where there is something to say."""
    ranks, scales = _listed(map(str, told["ranks"])), _listed(f"{scale:g}" for scale in told["scales"])
    kinds = _listed(f"{kind} ({name})" for kind, name in told["kinds"].items())
    loads = {
        name: f"{'yes' if told[name]['loads'] else 'no'}: {told[name]['said']}" for name in ("diffusers", "comfyui")
    }
    return [
        f"format     {told['trainer']} ({told['spelling']})",
        f"rank       {ranks}; scale {scales}",
        f"covers     {told['fit']} of its {told['modules']} modules fit, and move {told['moved']} of the "
        f"{told['pipeline_modules']} in {told['pipeline']}",
        f"diffusers  {loads['diffusers']}",
        f"ComfyUI    {loads['comfyui']}",
        *([f"mixes      {kinds}; each is cast to the base's type"] if len(told["kinds"]) > 1 else []),
        *([f"text       {_listed(told['text'])}: of a text encoder, not examined"] if told["text"] else []),
        *(f"wrong      {fault}" for fault in told["wrong"]),
    ]


def _refuse(file: Path, header: Header, names: Names) -> None:
    if not names.pairs:
        raise ValueError(
            f"{file} is no LoRA: none of its {len(header.tensors)} tensors is a lora_A, lora_down or alike"
        )
    refuse_quantised(file, header)
    for pair in names.pairs:
        if pair.rank == 0:
            raise ValueError(f"{file}: {pair.key} is of rank 0, which moves nothing; give a LoRA of rank 1 or more")
    with safe_open(file, framework="pt") as saved:
        for name in header.tensors:
            if not torch.isfinite(saved.get_tensor(name).float()).all():
                raise ValueError(f"{file}: {name} is not finite; its training broke down, take an earlier checkpoint")


def _take_up(file: Path, header: Header, names: Names, base: Base) -> Case:
    matched = {pair.key: base.find(bare(pair.key)) for pair in names.pairs}
    fits = {pair.key for pair in names.pairs if _fits(pair, [base.shapes[name] for name in matched[pair.key]])}
    with safe_open(file, framework="pt") as saved:
        alphas = {pair.key: float(saved.get_tensor(pair.alpha)) for pair in names.pairs if pair.alpha}
    told = read_told(file, header, names.trainer == "PEFT")
    asked = {
        pair.key: alphas[pair.key] / pair.rank
        if pair.key in alphas
        else told.scale((matched[pair.key] or [bare(pair.key)])[0], pair.rank)
        for pair in names.pairs
    }
    return Case(names, base, matched, fits, alphas, asked, told.source)


def _fits(pair: Pair, shapes: list[tuple[int, int]]) -> bool:
    return bool(shapes) and pair.columns == shapes[0][1] and pair.rows == sum(rows for rows, _ in shapes)


def _in_diffusers(case: Case, pipeline: Any, file: Path, header: Header) -> tuple[bool, str]:
    """Whether the stock loader takes all of it at the scale it asks for, and what it does."""
    try:
        scales = try_loading(pipeline, file, header)
    except ValueError as error:
        return False, str(error)
    wanted = {module: case.asked[key] for key in case.fits for module in case.matched[key]}
    missed = sorted(wanted.keys() - scales.keys())
    unlike = sorted(
        name for name in wanted.keys() & scales.keys() if not isclose(scales[name], wanted[name], rel_tol=1e-3)
    )
    said = f"{len(scales)} modules take effect"
    why = f"it reads no {BESIDE}" if case.source == BESIDE else ""
    return _verdict(case, said, missed, [(name, scales[name], wanted[name]) for name in unlike], why)


def _in_comfyui(case: Case) -> tuple[bool, str]:
    """The same for ComfyUI, by its key map; it knows alpha, and no metadata."""
    if case.base.pipeline not in SUPPORTED:
        return False, "it has no such model"
    if case.names.spelling not in COMFYUI_SPELLINGS:
        return False, f"it does not read {case.names.spelling}"
    accepted = accepted_keys(case.base.pipeline, list(case.base.shapes))
    missed = [pair.key for pair in case.names.pairs if pair.key not in accepted]
    scales = {pair.key: case.alphas.get(pair.key, pair.rank) / pair.rank for pair in case.names.pairs}
    unlike = [key for key in scales if not isclose(scales[key], case.asked[key], rel_tol=1e-3)]
    said = f"{len(case.names.pairs) - len(missed)} keys load"
    why = f"it reads no {BESIDE if case.source == BESIDE else 'metadata'}"
    return _verdict(case, said, missed, [(key, scales[key], case.asked[key]) for key in unlike], why)


def _verdict(
    case: Case, said: str, missed: list[str], unlike: list[tuple[str, float, float]], why: str = ""
) -> tuple[bool, str]:
    """Whether it all loads, and what was seen; unlike: what got a scale in place of the one it asks for, and why."""
    if missed:
        said += f", not {_listed(missed)}"
    if unlike:
        _, scale, asked = unlike[0]
        said += f"; at scale {scale:g} in place of {asked:g}: {why or _listed(name for name, _, _ in unlike)}"
    return case.is_whole and not missed and not unlike, said


def _faults(case: Case) -> list[str]:
    """What is wrong wherever the file is loaded."""
    pairs, names = case.names.pairs, case.names
    wrong_size = [pair for pair in pairs if case.matched[pair.key] and pair.key not in case.fits]
    found = {
        f"not in this {case.base.pipeline}; of another family or version": [
            pair.key for pair in pairs if not case.matched[pair.key]
        ],
        "of another size than the base's": [f"{pair.key} ({pair.rows} x {pair.columns})" for pair in wrong_size],
        "without another factor that fits": names.half,
        "no LoRA known here, left out": names.strange,
    }
    return [f"{_listed(keys)}: {what}" for what, keys in found.items() if keys]


def _kinds(header: Header) -> dict[str, str]:
    """The types of the factors, with the first of each."""
    kinds: dict[str, str] = {}
    for name, entry in header.tensors.items():
        if len(entry.shape) > 1:
            kinds.setdefault(entry.kind, name)
    return kinds


def _listed(names: Iterable[str]) -> str:
    """A few of the names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more
