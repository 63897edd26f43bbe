"""The commands that judge by statistics of many pictures, time, and sweep: each is a thin call."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexgen.cli.app import LARGEST_SEED, Checkpoint, Json, Sides, answer, busy, console, drawer_of, writable_folder
from apexgen.cli.evaluate import Guidance, Lora, Model, Out, Steps, evaluate, refuse_given, show

if TYPE_CHECKING:
    from apexgen.evaluate.sweep import Protocol

Features = Annotated[
    Path | None, typer.Option(help="FID's Inception, .pth or .safetensors; or the folder of a CLIP or DINOv2 model.")
]
Resize = Annotated[
    str | None, typer.Option(help="Before the Inception: clean-fid (the default), torchmetrics or pytorch-fid.")
]
Clip = Annotated[Path | None, typer.Option(help="A CLIP, for CLIP score: its folder, or a cached repository.")]
Cache = Annotated[Path | None, typer.Option(help="Where features are kept; ~/.cache/apexgen/features unless given.")]
Seed = Annotated[
    int, typer.Option(min=0, max=LARGEST_SEED, help="Picture i has the noise of seed + i; also of KID's subsets.")
]
Subjects = Annotated[
    list[str],
    typer.Argument(help="FOLDER[#CHECKPOINT][+LORA.safetensors][@STEPS][:GUIDANCE], a run's, a pipeline's or scenes."),
]


@evaluate.command()
def mjhq(
    model: Model,
    data: Annotated[Path, typer.Option(help="The folder of meta_data.json and mjhq30k_imgs.")],
    features: Features = None,
    clip: Clip = None,
    steps: Steps = 1,
    guidance: Guidance = 1.0,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    size: Sides = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Pictures of each category; all unless given.")] = None,
    seed: Seed = 0,
    resize: Resize = None,
    cache: Cache = None,
    out: Out = Path("apexgen-mjhq"),
    json: Json = False,
) -> None:
    """Draw MJHQ-30K's prompts, and say FID, KID and CLIP score of all and of each category.

    Example: apexgen evaluate mjhq runs/mine --data MJHQ-30K --features pt_inception-2015-12-05-6726825d.pth --clip CLIP
    """
    with busy("starting"):
        from apexgen.evaluate.collection import CACHE
        from apexgen.evaluate.protocols import Judges, judge_mjhq

    with busy("opening the judges"):
        judges = Judges.open(features, resize, clip, cache or CACHE, seed)
    drawer = drawer_of(model, lora, checkpoint, steps, guidance, size)
    show(judge_mjhq(drawer, data, judges, limit, out, console), json)


@evaluate.command()
def fid(
    pictures: Annotated[Path, typer.Argument(help="A folder of drawn pictures.")],
    reference: Annotated[Path, typer.Argument(help="A folder of true ones.")],
    features: Features = None,
    resize: Resize = None,
    seed: Seed = 0,
    cache: Cache = None,
    out: Annotated[Path | None, typer.Option(callback=writable_folder, help="A folder for the results, JSON.")] = None,
    json: Json = False,
) -> None:
    """FID and KID of two folders of pictures, and of each subfolder that both have.

    Example: apexgen evaluate fid drawn true --features pt_inception-2015-12-05-6726825d.pth
    """
    with busy("starting"):
        from apexgen.evaluate.collection import CACHE, find_pictures
        from apexgen.evaluate.features import open_extractor
        from apexgen.evaluate.protocols import save_all
        from apexgen.evaluate.statistics import distances
        from apexgen.evaluate.weights import best_device

    drawn, true = find_pictures(pictures), find_pictures(reference)
    with busy("opening the judge"):
        extractor = open_extractor(features, resize, best_device())
    results = distances(reference.resolve().name, true, drawn, extractor, cache or CACHE, console, seed)
    show(save_all(results, out) if out else results, json)


@evaluate.command()
def clip(
    pictures: Annotated[Path, typer.Argument(help="A folder that apexgen drew: its pictures hold their prompts.")],
    clip: Annotated[Path, typer.Option(help="A CLIP: its folder, or a cached repository.")],
    cache: Cache = None,
    out: Annotated[Path | None, typer.Option(callback=writable_folder, help="A folder for the result, JSON.")] = None,
    json: Json = False,
) -> None:
    """CLIP score of drawn pictures and their prompts, 100 cos.

    Example: apexgen evaluate clip apexgen-mjhq --clip clip-vit-large-patch14
    """
    with busy("starting"):
        from apexgen.evaluate.collection import CACHE, find_pictures, prompts_of
        from apexgen.evaluate.protocols import save_all
        from apexgen.evaluate.statistics import prompt_fit
        from apexgen.evaluate.weights import best_device

    drawn = find_pictures(pictures)
    result = prompt_fit("prompts", drawn, prompts_of(drawn), clip, cache or CACHE, console, best_device())
    show(save_all([result], out) if out else [result], json)


@evaluate.command()
def diversity(
    model: Model,
    prompts: Annotated[Path, typer.Option(help="One prompt a line.")],
    seeds: Annotated[int, typer.Option(min=2, help="Pictures of each prompt.")] = 8,
    features: Annotated[
        Path | None, typer.Option(help="FID's Inception, or the folder of a CLIP or DINOv2 model; pixels unless given.")
    ] = None,
    steps: Steps = 1,
    guidance: Guidance = 1.0,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    size: Sides = None,
    cache: Cache = None,
    out: Out = Path("apexgen-diversity"),
    json: Json = False,
) -> None:
    """Draw each prompt several times, and say how unlike the pictures of one prompt are.

    Example: apexgen evaluate diversity runs/mine --prompts prompts.txt --seeds 8 --features dinov2-base
    """
    with busy("starting"):
        from apexgen.encode import given_prompts
        from apexgen.evaluate.collection import CACHE
        from apexgen.evaluate.features import open_extractor, pixels
        from apexgen.evaluate.protocols import judge_diversity
        from apexgen.evaluate.weights import best_device

    texts = given_prompts([], prompts)
    with busy("opening the judge"):
        extractor = pixels() if features is None else open_extractor(features, device=best_device())
    drawer = drawer_of(model, lora, checkpoint, steps, guidance, size)
    show(judge_diversity(drawer, texts, seeds, extractor, cache or CACHE, out, console), json)


@evaluate.command()
def timing(
    models: Subjects,
    prompts: Annotated[Path | None, typer.Option(help="One prompt a line; two short ones unless given.")] = None,
    size: Sides = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16, for all.")] = "auto",
    repeats: Annotated[int, typer.Option(min=3, help="Calls of which the median is told.")] = 10,
    warmup: Annotated[int, typer.Option(min=1, help="Calls before those.")] = 2,
    out: Annotated[Path | None, typer.Option(callback=writable_folder, help="A folder for the results, JSON.")] = None,
    json: Json = False,
) -> None:
    """Throughput at batch 10, latency at batch 1 and its parts; stock:FOLDER is a diffusers pipeline's own call.

    Example: apexgen evaluate timing stock:scenes@50:3 scenes@50:3 runs/mine@1
    """
    with busy("starting"):
        from apexgen.encode import given_prompts
        from apexgen.evaluate.protocols import save_all
        from apexgen.evaluate.subject import read_subject
        from apexgen.evaluate.timing import PROMPTS, time_subjects, timing_table

    texts = PROMPTS if prompts is None else given_prompts([], prompts)
    results = time_subjects([read_subject(text) for text in models], texts, size, precision, repeats, warmup, console)
    if out:
        save_all(results, out)
    answer(json, [result.model_dump(mode="json") for result in results], timing_table(results))
    if len(results) < len(models):
        raise typer.Exit(1)


@evaluate.command()
def sweep(
    context: typer.Context,
    models: Subjects,
    steps: Annotated[str, typer.Option(help="Numbers of steps and ranges of them.")] = "1-4,8,16",
    prompts: Annotated[
        Path | None,
        typer.Option(help="One prompt a line; captions of the embedded world, judged exactly, unless given."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Pictures of each prompt.")] = 2,
    per_task: Annotated[int, typer.Option(min=1, help="Captions of each of the six tasks of the embedded world.")] = 10,
    clip: Clip = None,
    geneval: Annotated[
        str | None, typer.Option(help="Draw GenEval's prompts, judged by mask2former, owlv2 or grounding-dino.")
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Its weights: a folder, or a cached repository.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="GenEval's metadata; the official one if none.")] = None,
    size: Sides = None,
    cache: Cache = None,
    out: Out = Path("apexgen-sweep"),
    json: Json = False,
) -> None:
    """Draw and judge models in several numbers of steps: a table, charts, a grid of pictures, one page.

    Example: apexgen evaluate sweep scenes:3 runs/mine --steps 1-4,8,16
    """
    with busy("starting"):
        from apexgen.evaluate.collection import CACHE
        from apexgen.evaluate.subject import read_subject
        from apexgen.evaluate.sweep import read_steps
        from apexgen.evaluate.sweep import sweep as run_sweep

    if geneval is None:
        refuse_given(context, ("detector", "metadata"), "a sweep without --geneval")
        protocol = _own_protocol(prompts, seeds, per_task, clip, cache or CACHE)
    else:
        refuse_given(context, ("prompts", "per_task"), "--geneval")
        protocol = _geneval_protocol(geneval, detector, clip, metadata, seeds, cache or CACHE)
    subjects = [read_subject(text) for text in models]
    results = run_sweep(subjects, read_steps(steps), protocol, size, out, console)
    show(results, json)
    if results is not None:
        console.print(f"page: {out / 'sweep.html'}", soft_wrap=True)


def _own_protocol(prompts: Path | None, seeds: int, per_task: int, clip: Path | None, cache: Path) -> "Protocol":
    """One's own prompts, or the embedded world's."""
    from apexgen.encode import given_prompts
    from apexgen.evaluate.sweep import protocol_of

    return protocol_of(None if prompts is None else given_prompts([], prompts), seeds, per_task, clip, cache)


def _geneval_protocol(
    kind: str, detector: str | None, clip: Path | None, metadata: Path | None, seeds: int, cache: Path
) -> "Protocol":
    """GenEval's prompts and its judge."""
    from apexgen.evaluate.geneval.records import read_records
    from apexgen.evaluate.geneval.run import CLIP, Choice
    from apexgen.evaluate.sweep import geneval_protocol

    return geneval_protocol(
        read_records(metadata), seeds, Choice(kind, detector, CLIP if clip is None else str(clip)), cache
    )
