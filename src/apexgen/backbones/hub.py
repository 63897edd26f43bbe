"""A pipeline of the model hub, "hub:owner/name" or "hub:owner/name@revision", as a folder of huggingface_hub's cache.

Asking for it in these words is what downloads it, once; weights come as safetensors alone, and never any code.
"""

import re
from pathlib import Path

from apexgen.backbones.quiet import quiet

PREFIX = "hub:"
WANTED = ("model_index.json", *(f"*/*.{ending}" for ending in ("json", "safetensors", "txt", "model", "jinja")))
UNWANTED = ("*.fp16.*", "*.bf16.*", "*.non_ema.*")  # the same weights again


def find_folder(path: str) -> Path:
    """The folder that model.path names, fetched where it is the hub's. ValueError where the hub or its cache lacks it.

    A plain "owner/name" is a folder as any other path: nothing is downloaded by accident.
    """
    if path.startswith(PREFIX):
        return _fetch(path)
    if not Path(path).is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise ValueError(f'{path}: no such folder; for the model of that name on the hub write "{PREFIX}{path}"')
    return Path(path)


def _fetch(path: str) -> Path:
    from huggingface_hub import snapshot_download

    name, _, revision = path.removeprefix(PREFIX).partition("@")
    try:
        with quiet():
            folder = snapshot_download(
                name, revision=revision or None, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
            )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} can't be fetched, nor is it in the cache: {first}") from error
    return Path(folder)


def public_name(folder: Path) -> str:
    """What to call a pipeline's folder: "owner/name" where it is the hub's, else its own name."""
    if folder.parent.name != "snapshots":
        return folder.name
    return folder.parents[1].name.removeprefix("models--").replace("--", "/")
