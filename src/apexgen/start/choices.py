"""What fits a card: the families' published sizes, the ways to hold a base in memory, and what a step adds.

All sizes in GB of 10^9 bytes. Parameters of transformers and LoRAs, and the shares of weights that quantising reaches,
are those of docs/backbones.md, counted on published shapes; those of text encoders, their model cards'.
"""

from dataclasses import dataclass
from math import isfinite

OPTIMISED = 20  # bytes a LoRA's parameter takes in float32: itself, gradient, two moments, average
ELEMENT = 2  # bytes of a bfloat16 number
# Activations of a token, in widths of the network: between blocks, and inside the one in hand.
KEPT_PER_BLOCK, RECOMPUTED = 1, 40
SPARE = 0.12  # of a card: the allocator's fragments, the driver, the previews
OVERHEAD = 1.0  # GB: autoencoder in float32 and its work at 1024 px
RANKS, BATCHES = (64, 32, 16, 8), (8, 4, 2, 1)  # tried in this order
SAMPLES = 8  # a step has, whatever the batch that fits


@dataclass(frozen=True)
class Family:
    """One published model."""

    path: str
    parameters: float  # of the transformer, billions
    quantised: float  # share of them that 8 and 4 bits reach
    text: float  # parameters of the text encoders, billions; bfloat16 unless the base is float32
    lora: float  # parameters at rank 32, millions
    blocks: int
    width: int
    tokens: int  # of a picture at `size`, with the longest prompt
    size: int
    guidance: float  # of the teacher inside the run: the stock pipeline's default, counted as here, where 1 is none
    source: str


FAMILIES = {
    "qwen-image": Family("hub:Qwen/Qwen-Image", 20.43, 1, 8.3, 211, 60, 3072, 4352, 1024, 4.0,
                         "20.43 B, Qwen2.5-VL-7B for text: the cards of Qwen/Qwen-Image and its text encoder"),
    "flux": Family("hub:black-forest-labs/FLUX.1-dev", 11.90, 1, 4.9, 131, 57, 3072, 4608, 1024, 1.0,
                   "11.90 B, T5-XXL and CLIP-L for text: the card of black-forest-labs/FLUX.1-dev"),
    "sd3": Family("hub:stabilityai/stable-diffusion-3-medium-diffusers", 2.03, 1, 5.6, 42, 24, 1536, 4352, 1024, 7.0,
                  "2.03 B, T5-XXL and two CLIPs for text: the card of stable-diffusion-3-medium"),
    "sana": Family("hub:Efficient-Large-Model/Sana_1600M_1024px_diffusers", 1.60,
                   0.5, 2.6, 37, 20, 2240, 1324, 1024, 4.5,
                   "1.60 B, Gemma-2-2B for text: the card of Sana_1600M_1024px"),
    "lumina2": Family("hub:Alpha-VLLM/Lumina-Image-2.0", 2.61, 1, 2.6, 48, 30, 2304, 4352, 1024, 4.0,
                      "2.61 B, Gemma-2-2B for text: the card of Alpha-VLLM/Lumina-Image-2.0"),
    "z-image": Family("hub:Tongyi-MAI/Z-Image", 6.15, 1, 4.0, 80, 34, 3840, 4608, 1024, 6.0,
                      "6.15 B, Qwen3-4B for text: the card of Tongyi-MAI/Z-Image"),
    "scenes": Family("scenes", 0.003, 1, 0.001, 1, 6, 192, 80, 64, 3.0,
                     "the embedded model, whose files are in this package"),
}  # fmt: skip
HELD = {"float32": 4.0, "bfloat16": 2.0, "8bit": 1.0, "4bit": 0.5}  # bytes a weight


@dataclass(frozen=True)
class Choice:
    """One way to run a family, and what it takes, GB by part."""

    weights: str
    rank: int
    batch: int
    memory: dict[str, float]  # of a step
    encoding: float  # GB, before the first step: the text encoders alone, where the base waits for them to leave

    @property
    def training(self) -> float:
        """GB of a step."""
        return sum(self.memory.values())

    @property
    def needed(self) -> float:
        """GB at the most."""
        return max(self.training, self.encoding)


def estimate(family: Family, weights: str, rank: int, batch: int) -> Choice:
    """What a step of a batch takes, with activations computed again in the backward pass."""
    share = family.quantised if HELD[weights] < ELEMENT else 1.0
    held = share * HELD[weights] + (1 - share) * ELEMENT
    token = family.tokens * family.width * batch / 1e9
    base, text = family.parameters * held, family.text * (HELD[weights] if weights == "float32" else ELEMENT)
    rest = OVERHEAD if family.size > 64 else 0.1
    return Choice(weights, rank, batch, {
        "base": base,
        "LoRA and optimizer": family.lora * rank / 32 * OPTIMISED / 1e3,
        "activations": token * (family.blocks * KEPT_PER_BLOCK + RECOMPUTED) * ELEMENT,
        "autoencoder and the rest": rest,
    }, text + rest + (base if weights == "float32" else 0))  # fmt: skip


def choose(name: str, vram: float) -> Choice:
    """The best that fits a card of `vram` GB: the finest base, then the highest rank, then the largest batch.

    ValueError for an unknown family, for a card of no size, and for one too small, with the least that does.
    """
    family = find_family(name)
    if not isfinite(vram):
        raise ValueError(f"--vram {vram}: it is no number of GB; write --vram 24")
    usual = ("float32",) if name == "scenes" else tuple(HELD)[1:]
    tried = [estimate(family, weights, rank, batch) for weights in usual for rank in RANKS for batch in BATCHES]
    for choice in tried:
        if choice.needed <= vram * (1 - SPARE):
            return choice
    least = min(tried, key=lambda choice: (choice.needed, choice.training))
    card = -(-least.needed / (1 - SPARE) // 1)
    decimals = 1 if least.needed < 10 else 0
    raise ValueError(
        f'--vram {vram:g}: {name} takes {least.needed:.{decimals}f} GB at the least (weights = "{least.weights}", '
        f"rank = {least.rank}, batch = {least.batch}); write --vram {card:.0f}, or {_nearest(vram)}"
    )


def find_family(name: str) -> Family:
    """A family by its name; ValueError with the names there are."""
    if name not in FAMILIES:
        raise ValueError(f"no family {name}; write one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _nearest(vram: float) -> str:
    """The largest published family that a card can train; the embedded one, of 64 pixels, is in place of none."""
    published = [item for item in FAMILIES.items() if item[0] != "scenes"]
    for name, family in sorted(published, key=lambda item: -item[1].parameters):
        if estimate(family, "4bit", RANKS[-1], 1).needed <= vram * (1 - SPARE):
            return f"take a family that fits: {name}"
    return "train on another machine: no published family fits this card"
