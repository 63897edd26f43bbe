"""Train the embedded pipeline from nothing: autoencoder, text encoder, then flow matching.

Each stage leaves its result in the work folder beside the target, and the last one a checkpoint every thousand steps:
the same command goes on where it stopped. Held-out captions are never drawn.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from apexgen.backbones.diffusion import open_pipeline
from apexgen.files import whole_folder
from apexgen.scenes import pipeline as parts
from apexgen.scenes.train_autoencoder import train_autoencoder, train_decoder, training_pictures
from apexgen.scenes.train_flow import save_whole, train_flow
from apexgen.scenes.train_text import train_text

Report = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """The numbers of the shipped pipeline's recipe; docs/lab-notes.md tells where its own history differs."""

    seed: int = 0
    autoencoder_pictures: int = 12_000
    autoencoder_steps: int = 3_000
    autoencoder_batch: int = 32
    decoder_steps: int = 2_500
    text_steps: int = 2_400
    flow_pictures: int = 60_000
    flow_steps: int = 20_500
    flow_decay_steps: int = 3_500  # the last ones, in which the learning rate falls to zero
    flow_batch: int = 64
    flow_learning_rate: float = 1.5e-3


def parse_recipe(overrides: Sequence[str]) -> Recipe:
    """The recipe with settings such as flow_steps=100 changed; ValueError for a name or a value it does not know."""
    recipe = Recipe()
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(Recipe)}
    for override in overrides:
        name, _, value = override.partition("=")
        if name not in kinds:
            raise ValueError(f"unknown setting {name!r}: use one of {', '.join(kinds)}")
        try:
            recipe = replace(recipe, **{name: kinds[name](value)})
        except ValueError:
            raise ValueError(f"{name} = {value!r}: write a number, such as {name}={getattr(recipe, name)}") from None
        if getattr(recipe, name) <= 0 and name != "seed":
            raise ValueError(f"{name} = {value}: must be positive, such as {name}={getattr(Recipe(), name)}")
    return recipe


def build_pipeline(folder: Path, overrides: Sequence[str], start: Path | None, console: Console) -> dict[str, Any]:
    """Train every part and write the pipeline folder, whole or not at all; returns its recipe.

    start: a pipeline folder of the same parts, or "scenes"; its autoencoder and text encoder are kept, its transformer
    goes on.
    Raises ValueError when the target exists, or for a setting that is unknown or out of range.
    """
    recipe = parse_recipe(overrides)
    if folder.exists():
        raise ValueError(f"{folder} exists already; name another folder, or remove it")
    begun = open_pipeline(parts.pipeline_folder(str(start))) if start else None
    work = folder.with_name(f"{folder.name}-work")
    work.mkdir(parents=True, exist_ok=True)
    pipeline = begun or _untrained_transformer(recipe, work, console.print)
    train_flow(pipeline, recipe, work, console.print)
    _write(pipeline, recipe, folder)
    return asdict(recipe)


def _untrained_transformer(recipe: Recipe, work: Path, report: Report) -> Any:
    """A pipeline whose autoencoder and text encoder are trained, from the work folder if they are there."""
    tokenizer = parts.new_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # weights start from the global generator
        vae, text = parts.new_autoencoder(), parts.new_text_encoder(len(tokenizer))
        transformer = parts.new_transformer()
    _stage(work / "vae.pt", vae, lambda net: _train_codec(net, recipe, report))
    _stage(work / "text.pt", text, lambda net: train_text(net, tokenizer, recipe.text_steps, recipe.seed, report))
    return parts.assemble(vae, tokenizer, text, transformer)


def _train_codec(vae: Any, recipe: Recipe, report: Report) -> None:
    pictures = training_pictures(recipe)
    train_autoencoder(vae, pictures, recipe, report)
    train_decoder(vae, pictures, recipe, report)


def _stage(path: Path, network: Any, train: Callable[[Any], None]) -> Any:
    """The trained network of a stage, from the work folder if it is there."""
    if path.is_file():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(network)
        save_whole(network.state_dict(), path)
    return network.eval().requires_grad_(False)


def _write(pipeline: Any, recipe: Recipe, folder: Path) -> None:
    """Half precision on disk, but for the small text encoder; the recipe beside it."""
    pipeline.transformer.half()
    pipeline.vae.half()
    with whole_folder(folder) as partial:
        pipeline.save_pretrained(partial)
        parts.new_tokenizer().save_pretrained(partial / "tokenizer")  # one in use has padding of its last prompts
        for file in partial.rglob("*.json"):
            _forget_where_it_was(file)
        index = partial / "model_index.json"  # the tokenizer's name in transformers 5 is unknown to transformers 4
        index.write_text(index.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
        (partial / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")


def _forget_where_it_was(file: Path) -> None:
    """A pipeline that was opened from a folder writes the folder into its files."""
    told = json.loads(file.read_text())
    if told.pop("_name_or_path", None) is not None:
        file.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
