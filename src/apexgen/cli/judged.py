"""The commands whose judge is a model that sees: each is a thin call."""

from pathlib import Path
from typing import Annotated

import typer

from apexgen.cli.app import LARGEST_SEED, Checkpoint, Json, busy, console, writable_folder, writable_result
from apexgen.cli.evaluate import evaluate, show

Model = Annotated[str | None, typer.Argument(help="A run's folder, a pipeline's, or \"scenes\"; or give --pictures.")]
Data = Annotated[Path, typer.Option(help="The folder of the benchmark's data, which you download.")]
Judge = Annotated[str, typer.Option(help="A model that sees: its folder, a cached repository, or a server's address.")]
Out = Annotated[
    Path,
    typer.Option(
        callback=writable_folder, help="A folder for pictures, answers and the result; the same command goes on."
    ),
]
JudgeModel = Annotated[str | None, typer.Option(help="The server's model; its key is read from APEXGEN_JUDGE_KEY.")]
Workers = Annotated[int | None, typer.Option(help="Questions that a server is asked at once; 8 unless given.")]
Thinking = Annotated[bool, typer.Option(help="--no-thinking tells a server's chat template so, as vLLM takes it.")]
Lora = Annotated[Path | None, typer.Option(help="A LoRA for the pipeline, .safetensors, as apexgen exports it.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of sampling; 1 unless given.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance; none unless given.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the pictures' noise.")]
Pictures = Annotated[
    Path | None, typer.Option(help="A folder of pictures in the benchmark's layout, in place of a model.")
]
Name = Annotated[str | None, typer.Option(help="Who drew those pictures.")]
Strict = Annotated[bool, typer.Option("--strict-official", help="Repeat the published script's quirks too.")]


@evaluate.command()
def dpg(
    data: Data,
    judge: Judge,
    out: Out,
    model: Model = None,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    pictures: Pictures = None,
    name: Name = None,
    crops: Annotated[int, typer.Option(help="Pictures in a 2x2 grid: 4, or 1 for single pictures.")] = 4,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="The side of each picture in --pictures' grids; others are refused.")
    ] = None,
    strict: Strict = False,
    judge_model: JudgeModel = None,
    workers: Workers = None,
    thinking: Thinking = True,
    json: Json = False,
) -> None:
    """DPG-Bench: dense prompts, and yes/no questions that depend on one another.

    Example: apexgen evaluate dpg runs/mine --data dpg_bench --judge Qwen3-VL-8B-Instruct --out eval/mine-dpg
    """
    with busy("starting"):
        from apexgen.evaluate.dpg_run import run
        from apexgen.evaluate.source import Judging, Source

    source = Source(out, model, lora, checkpoint, steps, guidance, pictures, name)
    judging = Judging(judge, judge_model, workers, thinking)
    show(run(data, source, judging, seed, crops, strict, console, resolution), json)


@evaluate.command()
def wise(
    data: Data,
    judge: Judge,
    out: Out,
    model: Model = None,
    protocol: Annotated[
        str, typer.Option(help="verified, or legacy, as tables had it before April 2026.")
    ] = "verified",
    instruction: Annotated[
        Path | None, typer.Option(help="The judge's text: WISE's own script, or a .txt; ours unless given.")
    ] = None,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    pictures: Pictures = None,
    name: Name = None,
    judge_model: JudgeModel = None,
    workers: Workers = None,
    thinking: Annotated[
        bool | None, typer.Option(help="Of a server whose chat template can be told, as vLLM's; off for verified.")
    ] = None,
    json: Json = False,
) -> None:
    """WISE, legacy or Verified: prompts that take knowledge of the world.

    Example: apexgen evaluate wise runs/mine --data WISE --judge http://127.0.0.1:8000/v1 --judge-model Qwen3.5-35B-A3B
    --out eval/mine-wise
    """
    with busy("starting"):
        from apexgen.evaluate.source import Judging, Source
        from apexgen.evaluate.wise_run import find_protocol, run

    source = Source(out, model, lora, checkpoint, steps, guidance, pictures, name)
    found = find_protocol(protocol)
    judging = Judging(judge, judge_model, workers, found.thinking if thinking is None else thinking)
    show(run(data, found, source, judging, instruction, seed, console), json)


@evaluate.command()
def geneval2(
    data: Data,
    judge: Judge,
    out: Out,
    model: Model = None,
    lora: Lora = None,
    checkpoint: Checkpoint = "latest",
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    pictures: Pictures = None,
    name: Name = None,
    strict: Strict = False,
    judge_model: JudgeModel = None,
    workers: Workers = None,
    thinking: Thinking = True,
    json: Json = False,
) -> None:
    """GenEval 2: the probability of the right answer to each question, Soft-TIFA.

    Example: apexgen evaluate geneval2 runs/mine --data GenEval2 --judge Qwen3-VL-8B-Instruct --out eval/mine-geneval2
    """
    with busy("starting"):
        from apexgen.evaluate.geneval2_run import run
        from apexgen.evaluate.source import Judging, Source

    source = Source(out, model, lora, checkpoint, steps, guidance, pictures, name)
    show(run(data, source, Judging(judge, judge_model, workers, thinking), seed, strict, console), json)


@evaluate.command("import-judged")
def import_judged(
    benchmark: Annotated[str, typer.Argument(help="dpg, wise-legacy, wise-verified or geneval2.")],
    results: Annotated[Path, typer.Argument(help="The official script's file; for WISE the folder of its files.")],
    name: Annotated[str, typer.Option(help="Who drew the pictures.")],
    judge: Annotated[str, typer.Option(help="Who judged them, such as mplug.")],
    out: Annotated[Path, typer.Option(callback=writable_result, help="The result to write, JSON.")],
    data: Annotated[Path | None, typer.Option(help="The benchmark's data, to score answers with.")] = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Make a result of an official script's files.

    Example: apexgen evaluate import-judged dpg res_detail.txt --data dpg_bench --strict-official --name x --judge mplug
    --out x.json
    """
    with busy("starting"):
        from apexgen.evaluate.official import import_official

    show(import_official(benchmark, results, data, strict, name, judge, out), json)
