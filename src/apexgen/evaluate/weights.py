"""Judges' weights: a folder, or what the hub's cache has; nothing is downloaded, and what is missing is named."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from apexgen.backbones.diffusion import quiet

# Beside the weights; "|" is between what may be there in place of one another, "+" between files that take each other.
TOKENIZER = ("tokenizer_config.json", "tokenizer.json|vocab.json+merges.txt|vocab.txt|tokenizer.model|tekken.json")
LOCAL = {"local_files_only": True, "trust_remote_code": False}  # not told so, transformers asks, and runs code on a "y"
WORDS = ("dog", "cat")  # which every tokenizer tells apart


def best_device() -> str:
    """Where a judge runs: this rank's GPU, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def find_weights(option: str, name: str, usual: str, needed: Sequence[str] = ("config.json",)) -> Path:
    """The folder of a judge: `name` is one, or a hub repository that was downloaded before, such as `usual`.

    `needed` are files, or files that may be in each other's place; see TOKENIZER.

    Raises ValueError, one line that says what to download and where to put it, where the folder or repository is not
    there, has no .safetensors, or lacks one of the `needed` files.
    """
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    if folder is None:
        wanted = ", ".join((*map(_first, needed), "*.safetensors"))
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise ValueError(f"{option} {name}: no such folder; run: hf download {usual}, and write {option} {usual}")
        raise ValueError(
            f"{option} {name} is not on this machine; run: hf download {name}, or put its {wanted} into a folder "
            f"and write {option} FOLDER"
        )
    missing = [_first(file) for file in needed if not _is_there(folder, file)]
    if next(folder.glob("*.safetensors"), None) is None:
        missing.append("*.safetensors")
    if missing:
        raise ValueError(f"{option} {name} lacks {', '.join(missing)}; put all of it there, or: hf download {usual}")
    return folder


def name_of(name: str) -> str:
    """What results call a judge: its folder, or repository, alone, however it was typed; a hash tells the rest."""
    return Path(name).resolve().name


def _first(needed: str) -> str:
    return needed.partition("|")[0]


def _is_there(folder: Path, needed: str) -> bool:
    return any(all((folder / file).is_file() for file in choice.split("+")) for choice in needed.split("|"))


def _cached(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def open_judge(kind: Any, folder: Path, device: str | torch.device, dtype: Any = torch.float32) -> Any:
    """The network of a transformers class from its folder, in a precision, to be used and not trained.

    Nothing is downloaded and no code of the folder is run. ValueError, one line, where the weights can't be read, or
    are not all there: a head of random weights would judge as well as a coin.
    """
    with _in_one_line(folder):
        network, told = kind.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=dtype, **LOCAL
        )
    weights = {name for name, _ in network.named_parameters()}
    if missing := sorted(weights & set(told["missing_keys"])):
        raise ValueError(f"{folder} is no {kind.__name__}: it lacks {missing[0]} and {len(missing) - 1} more weights")
    return network.eval().requires_grad_(False).to(device)


def open_processor(kind: Any, folder: Path) -> Any:
    """The tokenizer or processor of a folder; ValueError, one line, where it can't be read.

    So is one whose tokenizer knows no words: transformers opens it without its vocabulary, and all texts are one to it.
    """
    with _in_one_line(folder):
        opened = kind.from_pretrained(folder, **LOCAL)
    if not _knows_words(getattr(opened, "tokenizer", opened)):
        raise ValueError(f"{folder} has a tokenizer to which all words are one; put its {_first(TOKENIZER[1])} there")
    return opened


def _knows_words(tokenizer: Any) -> bool:
    """Whether it tells words apart; a processor of pictures has none to tell."""
    if not hasattr(tokenizer, "encode"):
        return True
    try:
        one, other = (tokenizer.encode(word) for word in WORDS)
    except Exception:  # of tokenizers, which has no other: the vocabulary lacks even the unknown word
        return False
    return bool(one != other)


@contextmanager
def _in_one_line(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        with quiet():
            yield
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ValueError(f"{folder} can't be opened: {str(error).strip().splitlines()[0]}") from error
