"""Judges' weights: a folder, or what the hub's cache has; nothing is downloaded, and what is missing is named."""

from collections.abc import Sequence
from pathlib import Path


def find_weights(option: str, name: str, needed: Sequence[str] = ("config.json",)) -> Path:
    """The folder of a judge: `name` is one, or a hub repository that was downloaded before.

    Raises ValueError, one line that says what to download and where to put it, where the folder or repository is not
    there, has no .safetensors, or lacks one of the `needed` files.
    """
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    if folder is None:
        wanted = ", ".join((*needed, "*.safetensors"))
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise ValueError(f"{option} {name}: no such folder; put {wanted} of the judge into it")
        raise ValueError(
            f"{option} {name} is not on this machine; run: hf download {name}, or put its {wanted} into a folder "
            f"and write {option} FOLDER"
        )
    missing = [file for file in needed if not (folder / file).is_file()]
    if next(folder.glob("*.safetensors"), None) is None:
        missing.append("*.safetensors")
    if missing:
        raise ValueError(f"{option} {name}: {folder} lacks {', '.join(missing)}; put it there, or: hf download {name}")
    return folder


def _cached(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
