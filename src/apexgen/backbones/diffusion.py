"""Open a diffusers pipeline folder safely: check it first, then load it, so that a mistake costs one clear line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import torch
from torch import nn

from apexgen.backbones.header import read_header, refuse_quantised
from apexgen.backbones.held import Weights, check_package, loading_options, opened_type, quantise
from apexgen.backbones.index import check_flow, check_parts, network_class, read_index, stock_class
from apexgen.backbones.later import empty_network, leave_network
from apexgen.backbones.quiet import quiet

if TYPE_CHECKING:
    from apexgen.backbones.base import Backbone

BACKBONES = {  # pipeline class -> "module:Class", imported on use
    "FluxPipeline": "apexgen.backbones.flux:Flux",
    "Lumina2Pipeline": "apexgen.backbones.lumina2:Lumina2",
    "QwenImagePipeline": "apexgen.backbones.qwen:QwenImage",
    "SanaPipeline": "apexgen.backbones.sana:Sana",
    "StableDiffusion3Pipeline": "apexgen.backbones.sd3:StableDiffusion3",
    "ZImagePipeline": "apexgen.backbones.zimage:ZImage",
}
# A part's files of weights: a network's, a text encoder's.
WEIGHTS = tuple(
    f"{name}{ending}"
    for name in ("diffusion_pytorch_model", "model")
    for ending in (".safetensors", "-*-of-*.safetensors")
)


def read_adapter(folder: Path) -> "type[Backbone]":
    """The adapter of a pipeline folder's family; ValueError where it is no pipeline, or of no such family."""
    family = read_index(folder)["_class_name"]
    if family not in BACKBONES:
        raise ValueError(f"{folder} is a {family}: apexgen has adapters for {', '.join(sorted(BACKBONES))}")
    check_flow(folder)
    return find_adapter(family)


def load_backbone(
    folder: str | Path,
    device: str | torch.device = "cpu",
    weights: Weights = "float32",
    with_text: bool = True,
    with_network: bool = True,
) -> "Backbone":
    """Open a pipeline folder as a Backbone; nothing is downloaded and no code from the folder is run.

    weights: how those of its network are held, whatever types the folder's tensors have; each is cast.
    with_text: False leaves the text encoders for when a text is encoded.
    with_network: False leaves the network's weights, and their checks, for `fetch_network`.

    Raises ValueError, one line, when the folder is missing, is not a diffusers pipeline, lacks a part, is of a family
    without an adapter, is not a flow-matching model, has a broken or missing weight file, or weights that are missing,
    not finite or quantised by others.
    """
    path = Path(folder)
    adapter, index = read_adapter(path), read_index(path)
    check_diffusers(adapter)
    check_package(weights)
    check_parts(path, index, adapter.may_lack)
    network_class(path, index)
    parts = ("transformer", "vae", *(name for name in index if name.startswith("text_encoder")))
    for file in [file for part in parts for name in WEIGHTS for file in (path / part).glob(name)]:
        refuse_quantised(file, read_header(file))
    backbone = _open(path, index, adapter, weights, with_text, with_network)
    if with_network:
        quantise(backbone.network, weights, device)
        backbone.pipeline.to(device)
    else:
        leave_network(backbone, device)
    return backbone


def _open(
    path: Path, index: dict[str, Any], adapter: "type[Backbone]", weights: Weights, with_text: bool, with_network: bool
) -> "Backbone":
    """The pipeline as its family's Backbone, with what is left on the disk and how that is opened later."""
    text_parts = [name for name in index if name.startswith("text_encoder")]
    absent = [name for name in text_parts if index[name][1] is None]  # some families do without one
    left = (*(absent if with_text else text_parts), *(() if with_network else ("transformer",)))
    pipeline = open_pipeline(path, weights, left)
    if not with_network:
        pipeline.register_modules(transformer=empty_network(path, network_class(path, index), weights))
    backbone = adapter(pipeline)
    backbone.weights = weights
    backbone.text_parts = [name for name in text_parts if name not in absent]
    backbone.open_text = partial(open_pipeline, path, weights, ("transformer", "vae", *absent))
    if not with_network:
        backbone.open_network = partial(_open_network, path, weights, ("vae", *text_parts))
    return backbone


def _open_network(path: Path, weights: Weights, without: Sequence[str], device: torch.device) -> Any:
    """The network of a pipeline folder alone, held as asked on a device."""
    network = open_pipeline(path, weights, without).transformer
    quantise(network, weights, device)
    return network.to(device)


def find_adapter(family: str) -> "type[Backbone]":
    """The adapter of a pipeline class among BACKBONES, imported now."""
    module, _, name = BACKBONES[family].partition(":")
    return getattr(import_module(module), name)


def check_diffusers(adapter: "type[Backbone]") -> None:
    """ValueError when the installed diffusers is too old for a family."""
    from diffusers import __version__

    if tuple(map(int, __version__.split(".")[:2])) < adapter.oldest_diffusers:
        oldest = ".".join(map(str, adapter.oldest_diffusers))
        raise ValueError(
            f"{adapter.family} needs diffusers {oldest}, here is {__version__}; write: pip install -U diffusers"
        )


def open_pipeline(path: Path, weights: Weights = "float32", without: Sequence[str] = ()) -> Any:
    """The stock pipeline of a folder, quietly, some of its parts left out.

    ValueError when it can't be opened, or holds weights that are missing or not finite.
    """
    options = {"use_safetensors": True, "local_files_only": True} | loading_options(weights) | dict.fromkeys(without)
    for name, kind in read_index(path).items():
        if name.startswith("text_encoder") and name not in without and kind[0] == "transformers":
            options[name] = open_text_encoder(path / name, kind[1], weights)
    stock = stock_class("DiffusionPipeline")
    with _in_one_line(path):
        pipeline = stock.from_pretrained(path, **options)
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            check_weights(path / name, part)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def open_text_encoder(folder: Path, kind: str, weights: Weights = "float32") -> Any:
    """A text encoder as the stock pipeline opens it; ValueError where its file lacks a tensor."""
    import transformers

    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    options["trust_remote_code"] = False  # not told so, it asks, and runs the folder's code on a "y"
    with _in_one_line(folder):
        # Asked for no type, transformers opens an encoder in the one it was published in.
        model, found = getattr(transformers, kind).from_pretrained(folder, dtype=opened_type(weights), **options)
    if found["missing_keys"]:  # which it has made up, and tells only to those who ask
        raise ValueError(f"{folder}: {min(found['missing_keys'])} is missing; fetch it again")
    return model


def check_weights(folder: Path, part: nn.Module) -> None:
    """ValueError where a part of a pipeline has a weight that its folder lacks or that is not finite."""
    for name, weight in part.state_dict().items():
        if weight.is_meta:  # how diffusers leaves what it has not found
            raise ValueError(f"{folder}: {name} is missing; fetch it again")
        if not weight.isfinite().all():
            raise ValueError(f"{folder}: {name} is not finite; fetch it again, or take an earlier checkpoint")


@contextmanager
def _in_one_line(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        with quiet(), catch_warnings():
            simplefilter("ignore", FutureWarning)  # newer diffusers calls torch_dtype dtype
            yield
    except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder} can't be opened: {str(error).strip().splitlines()[0]}") from error
