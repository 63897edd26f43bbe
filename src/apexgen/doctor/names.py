"""The names that trainers give a LoRA's tensors: `<prefix><module>.<factor>`, each trainer in its own way."""

import re
from dataclasses import dataclass

from apexgen.backbones.header import Entry

DOWN, UP = "down", "up"
FACTORS = {  # how the names of the two factors end, before an adapter's name and ".weight"
    "lora_A": DOWN,
    "lora_down": DOWN,
    "lora.down": DOWN,
    "lora_B": UP,
    "lora_up": UP,
    "lora.up": UP,
}
PREFIXES = {  # the first that fits; longer ones before what they begin with
    "base_model.model.": "PEFT",
    "transformer.": "diffusers",
    "diffusion_model.": "ComfyUI (ai-toolkit, musubi-tuner)",
    "lora_unet_": "kohya",
    "lora_transformer_": "OneTrainer",
    "lycoris_": "SimpleTuner (LyCORIS)",
}
TEXT = ("lora_te", "text_encoder", "text_encoders.")  # of the encoders, which the doctor leaves alone
_FACTOR = re.compile(rf"(.+)\.({'|'.join(map(re.escape, FACTORS))})(\.\w+)?\.weight")


@dataclass(frozen=True)
class Pair:
    """The LoRA of one module, as a file has it."""

    key: str  # what stands before the factors' names
    rank: int
    columns: int  # of what it adapts
    rows: int
    alpha: str | None  # the tensor that holds it


@dataclass(frozen=True)
class Names:
    """The tensors of a file, sorted out."""

    pairs: list[Pair]
    text: list[str]  # of text encoders
    half: list[str]  # modules of which one factor is missing, or the two do not fit
    strange: list[str]  # of no LoRA that is known here
    trainer: str  # whose way of naming it is
    spelling: str  # of the factors


def sort_out(tensors: dict[str, Entry]) -> Names:
    """The LoRA of each module in a file's tensors."""
    factors: dict[str, dict[str, Entry]] = {}
    text, strange, spellings = [], [], set()
    for name, entry in tensors.items():
        found = _FACTOR.fullmatch(name)
        if name.startswith(TEXT):
            text.append(name)
        elif found:
            factors.setdefault(found[1], {})[FACTORS[found[2]]] = entry
            spellings.add(found[2] + (found[3] or ""))
        elif not name.endswith(".alpha"):
            strange.append(name)
    pairs = {key: _pair(key, both, tensors) for key, both in factors.items()}
    half = [key for key, pair in pairs.items() if pair is None]
    whole = [pair for pair in pairs.values() if pair is not None]
    spelling = ", ".join(sorted(spellings))
    return Names(whole, text, half, strange, _trainer(list(factors), spelling), spelling)


def _pair(key: str, both: dict[str, Entry], tensors: dict[str, Entry]) -> Pair | None:
    if both.keys() != {DOWN, UP} or min(len(entry.shape) for entry in both.values()) < 2:
        return None
    down, up = both[DOWN].shape, both[UP].shape
    if down[0] != up[1]:
        return None
    return Pair(key, down[0], down[1], up[0], f"{key}.alpha" if f"{key}.alpha" in tensors else None)


def _trainer(keys: list[str], spelling: str) -> str:
    found = {trainer for key in keys for prefix, trainer in PREFIXES.items() if key.startswith(prefix)}
    if found:
        return " and ".join(sorted(found))
    if ".default" in spelling:
        return "DiffSynth-Studio"
    return "Lightning" if "lora_down" in spelling else "bare names"


def bare(key: str) -> str:
    """A module's name without its trainer's prefix."""
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key
