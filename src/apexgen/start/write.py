"""A commented run file that fits a card: each line with why it is so."""

from pathlib import Path

from apexgen.files import write_whole
from apexgen.start.choices import SAMPLES, SPARE, Choice, Family, choose, find_family

WHY = {
    "float32": "as trained; the smallest families need no less",
    "bfloat16": "half of float32, and what the base was published in",
    "8bit": "bfloat16 does not fit this card; the LoRA stays float32. Needs apexgen[memory]",
    "4bit": "8 bits do not fit this card; the LoRA stays float32. Needs apexgen[memory]",
}

Line = tuple[str, str, str]  # a key, its value as TOML, and why, or ""


def run_file(name: str, vram: float) -> str:
    """The run file of a family for a card of `vram` GB; ValueError where none fits."""
    family, choice = find_family(name), choose(name, vram)
    folder = ("folder", f'"runs/{name}"', "checkpoints, previews, numbers; the same command goes on from them")
    sections = {
        "objective": _objective(family),
        "model": _model(family, choice, name == "scenes"),
        "data": _data(name),
        "train": _train(choice, name == "scenes"),
    }
    told = "\n".join(f"[{section}]\n{_lines(lines)}" for section, lines in sections.items())
    return f"{_head(name, vram, family, choice)}\n{_lines([folder])}\n{told}"


def _lines(lines: list[Line]) -> str:
    """Settings, one a line, the reasons in a column."""
    return "".join(f"{f'{key} = {value}':<35}# {why}\n" if why else f"{key} = {value}\n" for key, value, why in lines)


def _objective(family: Family) -> list[Line]:
    distilled = family.guidance == 1
    why = "the network was distilled from guidance already" if distilled else "the teacher's usual, baked in"
    return [
        ("name", '"apex"', "one network, no discriminator, prompts alone: apexgen's default"),
        ("guidance", str(family.guidance), why),
        ("warmup", "100", "steps that the fake field learns alone, before it may correct anything"),
    ]


def _head(name: str, vram: float, family: Family, choice: Choice) -> str:
    """What to do with the file, and what its run would take."""
    parts = "\n".join(f"#   {part:<26}{size:6.1f}" for part, size in choice.memory.items())
    return f"""\
# {name} into one step, on a card of {vram:g} GB. Look at the plan first, then train:
#   apexgen train FILE --dry-run
#   apexgen train FILE
#
# Estimated, in GB, of which {1 - SPARE:.0%} of the card may be taken:
{parts}
#   {"in a step":<26}{choice.training:6.1f}
#   {"while prompts are encoded":<26}{choice.encoding:6.1f}
# From {family.source}.
# The rest is arithmetic on these shapes; --dry-run measures it on the model itself.
"""


def _model(family: Family, choice: Choice, scenes: bool) -> list[Line]:
    path = ("path", f'"{family.path}"', "")
    rank = ("rank", str(choice.rank), "of the LoRA: the most that fits, up to 64")
    if scenes:
        return [path, rank]
    return [
        path,
        ("size", str(family.size), 'of a square, or "WIDTHxHEIGHT"; less of it is less memory and time'),
        rank,
        ("weights", f'"{choice.weights}"', WHY[choice.weights]),
        ("checkpointing", "true", "activations are computed again in the backward pass"),
    ]


def _data(name: str) -> list[Line]:
    if name == "scenes":
        source = ("source", '"scenes"', "captions of the embedded world")
    else:
        why = "yours: one prompt a line; a few thousand, and as varied as what you will ask"
        source = ("source", '"prompts.txt"', why)
    cache = "what is encoded is kept here, and the text encoders leave the memory"
    return [source, ("cache", f'"cache/{name}"', cache)]


def _train(choice: Choice, scenes: bool) -> list[Line]:
    accumulate = max(1, SAMPLES // choice.batch)
    usual = ("1e-4", "usual for a LoRA; halve it where the loss jumps")
    rate = ("3e-3", "of a network this small") if scenes else usual
    return [
        ("steps", "2000", "previews show when more is of no use"),
        ("batch", str(choice.batch), "the most that fits"),
        ("accumulate", str(accumulate), f"batches a step: {choice.batch * accumulate} samples, whatever fits at once"),
        ("learning_rate", *rate),
        ("ema", "0.98", "the average that is sampled and exported looks back some 50 steps"),
        ("on_divergence", '"skip"', "a step that is not finite changes nothing; five in a row stop the run"),
        ("save_every", "200", ""),
        ("preview_every", "200", ""),
    ]


def write_start(text: str, out: Path) -> Path:
    """Write a run file; ValueError where one is there already, which may hold somebody's work."""
    if out.exists():
        raise ValueError(f"{out} is there already; give another name with --out")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    write_whole(out, text.encode())
    return out
