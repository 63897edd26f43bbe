"""What a pipeline's folder says it holds, read and checked before anything in it is opened."""

import json
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from apexgen.backbones.quiet import quiet

FLOW_SCHEDULERS = ("FlowMatch", "SCM")  # how names of flow-matching schedulers begin
# Whose classes a part may be, the last of diffusers' own; any other diffusers would import, from the folder if it can.
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")  # one of these holds the tokens


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's model_index.json; ValueError where it is missing, is no pipeline, or names others' code."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give a diffusers pipeline folder")
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is not a diffusers pipeline: it has no model_index.json")
    content = _read_table(index)
    if not isinstance(content.get("_class_name"), str):  # a list is of a class in the folder's own code
        raise ValueError(f"{index} is broken: it names no pipeline class (_class_name)")
    for name, kind in content.items():
        pair = isinstance(kind, list | str) and len(kind) == 2 and not name.startswith("_")  # as diffusers unpacks it
        if pair and isinstance(kind[0], str) and kind[0] not in LIBRARIES:
            raise ValueError(f"{index}: its {name} is {kind!r}; name a class of diffusers or transformers")
    return content


def _read_table(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, or no text
        raise ValueError(f"{file} is broken: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is broken: it is no table")
    return content


def check_flow(folder: Path) -> None:
    """ValueError when the folder's scheduler is not a flow-matching one."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no scheduler/scheduler_config.json")
    config = _read_table(path)
    name = str(config.get("_class_name", ""))
    if not name.startswith(FLOW_SCHEDULERS) and not config.get("use_flow_sigmas", False):
        raise ValueError(
            f"{folder} is no flow-matching model: its scheduler is {name}; apexgen distils models whose scheduler is "
            "FlowMatchEulerDiscreteScheduler or another with flow sigmas"
        )


def stock_class(name: str) -> Any:
    """The class of diffusers of that name, or None, imported now, with all that it imports.

    ValueError where diffusers does not go with what is installed beside it.
    """
    import diffusers

    try:
        with quiet():
            return getattr(diffusers, name, None)
    except RuntimeError as error:  # how its lazy modules say that one of theirs failed: 0.36 beside a newer torchao
        why = str(error).strip().splitlines()[-1]
        raise ValueError(f"diffusers can't be imported ({why}); write: pip install -U diffusers") from error


def network_class(folder: Path, index: dict[str, Any]) -> Any:
    """The class in diffusers of a pipeline's transformer; ValueError where its index names none, or it is not there."""
    kind = index.get("transformer")
    name = kind[1] if isinstance(kind, list) and len(kind) == 2 and kind[0] == "diffusers" else None
    found = stock_class(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"{folder / 'model_index.json'}: its transformer is {kind}, which diffusers has not")
    if not (folder / "transformer" / "config.json").is_file():
        raise ValueError(f"{folder / 'transformer'} has no config.json; fetch it again")
    return found


def needed_parts(pipeline: Any) -> list[str]:
    """What a pipeline's class can't be made without, though some of it may be None."""
    return [name for name, given in signature(pipeline).parameters.items() if given.default is given.empty]


def check_parts(folder: Path, index: dict[str, Any], may_lack: Sequence[str]) -> None:
    """ValueError where a pipeline's folder lacks a part, or the file that says what the part is.

    may_lack: parts that the family's index may name as none. Of a tokenizer that is not there transformers makes an
    empty one, which reads every prompt alike.
    """
    for name in needed_parts(stock_class(index["_class_name"])):
        kind = index.get(name)
        if kind == [None, None] and name in may_lack:
            continue
        if not (isinstance(kind, list) and len(kind) == 2 and all(isinstance(word, str) for word in kind)):
            raise ValueError(
                f"{folder / 'model_index.json'} names no {name}, which this pipeline needs; fetch it again"
            )
        files = {"tokenizer": TOKENIZERS, "scheduler": ("scheduler_config.json",)}.get(
            name.partition("_")[0], ("config.json",)
        )
        if not any((folder / name / file).is_file() for file in files):
            raise ValueError(f"{folder / name} has no {' or '.join(files)}; fetch it again")
