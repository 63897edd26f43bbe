"""Timing: parts that add up to the whole, evaluations counted at the network itself, ours beside the stock pipeline."""

import json
import time

import numpy as np
import pytest
import torch
from rich.console import Console

from apexgen.cli import main
from apexgen.evaluate import timing
from apexgen.evaluate.meter import PARTS, forget_peak, peak_bytes, rows_of
from apexgen.evaluate.result import by_protocol, load_result
from apexgen.evaluate.subject import StockDrawer, open_drawer, read_subject
from apexgen.evaluate.timing import measure, time_subjects, timing_table
from apexgen.size import Size
from pipelines import SQUARE
from runs import finished_run

QUIET = Console(quiet=True)
PROMPTS = ["a red ring", "two blue circles"]


def pipeline_of(drawer):
    return drawer.pipeline if hasattr(drawer, "pipeline") else drawer.model.backbone.pipeline


@pytest.mark.parametrize(
    ("text", "evaluations"), [("scenes@2", 2), ("scenes@3:2.5", 6), ("stock:scenes@2", 2), ("stock:scenes@2:3", 4)]
)
def test_evaluations_are_those_of_the_network_and_parts_make_the_whole(text, evaluations):
    drawer = open_drawer(read_subject(text))
    pipeline = pipeline_of(drawer)
    rows = []
    pipeline.transformer.register_forward_hook(lambda module, given, output: rows.append(len(output[0])))
    calls = measure(drawer, pipeline, PROMPTS, batch=3, repeats=2, warmup=1)
    assert sum(rows) == 3 * 3 * evaluations  # three pictures, three calls
    for call in calls:
        assert call.evaluations == evaluations
        assert sum(call.parts.values()) == pytest.approx(call.whole)
        assert all(seconds > 0 for seconds in call.parts.values())
        assert call.parts["transformer"] > call.parts["other"] or call.parts["other"] < 0.5 * call.whole


def test_a_slow_part_is_told_as_slow():
    drawer = open_drawer(read_subject("scenes@1"))
    pipeline = pipeline_of(drawer)
    for name in ("text_encoder", "transformer"):
        getattr(pipeline, name).register_forward_pre_hook(lambda *_: time.sleep(0.05))
    decode = pipeline.vae.decode
    pipeline.vae.decode = lambda *inputs, **options: (time.sleep(0.05), decode(*inputs, **options))[1]
    [call] = measure(drawer, pipeline, PROMPTS, batch=1, repeats=1, warmup=1)
    assert call.parts["vae"] > 0.05 and call.whole > 0.05
    assert call.evaluations == 1


def test_no_hook_is_left_behind():
    drawer = open_drawer(read_subject("scenes@1"))
    pipeline = pipeline_of(drawer)
    measure(drawer, pipeline, PROMPTS, batch=1, repeats=1, warmup=1)
    assert "decode" not in vars(pipeline.vae)
    assert not any(
        len(part._forward_hooks) + len(part._forward_pre_hooks)
        for part in (pipeline.transformer, pipeline.text_encoder)
    )


def test_a_run_is_timed_beside_its_stock_teacher_as_ratios(tmp_path):
    run = finished_run(tmp_path / "run", "scenes", "objective.name=apex")
    subjects = [read_subject(text) for text in ("stock:scenes@2:3", f"{run}@1")]
    first, ours = time_subjects(subjects, PROMPTS, None, "float32", repeats=3, warmup=1, console=QUIET)
    assert (first.evaluations, ours.evaluations) == (4, 1)
    assert first.scores["x faster"] == first.scores["x images/s"] == 1
    assert ours.scores["x faster"] == pytest.approx(first.scores["latency"] / ours.scores["latency"])
    assert ours.settings == first.settings and ours.settings["batch"] == 10 and ours.settings["size"] == 64
    parts = [ours.scores[name] for name in ("text", "transformer", "vae", "other")]
    assert sum(parts) == pytest.approx(ours.scores["latency"], rel=0.5)  # medians of each
    assert set(ours.spread) >= {"images/s", "latency"} and ours.n == 33
    assert json.loads(ours.model_dump_json())["drawn"]["weights"]
    assert ours.settings["beside"] == "stock:scenes@2:3"
    console = Console(width=240)
    with console.capture() as said:
        console.print(timing_table([first, ours]))
    words = " ".join(said.get().split())
    assert "at batch 10" in words and "medians of 3 calls after 1 of warm-up in each of 3 turns, not compiled" in words
    assert "x: beside stock:scenes@2:3" in words
    assert len(by_protocol([ours, ours.model_copy(update={"settings": ours.settings | {"beside": "other"}})])) == 2


def test_stock_and_ours_draw_the_same_number_of_pictures_of_the_same_size():
    wide = Size(64, 96)
    ours, stock = (open_drawer(read_subject(text), wide, "float32") for text in ("scenes@1", "stock:scenes@1"))
    drawn = [drawer.draw(PROMPTS, [0, 1]) for drawer in (ours, stock)]
    assert drawn[0].shape == drawn[1].shape == (2, *wide, 3)
    assert np.abs(drawn[0] - drawn[1]).max() < 1e-3  # the same noises, and plain steps


@pytest.mark.parametrize("family", ["qwen", "flux", "sd3", "zimage", "lumina2"])
def test_rows_are_counted_in_every_family(folders, family):
    if family not in folders:
        pytest.skip("its diffusers is too old")
    drawer = open_drawer(read_subject(f"stock:{folders[family]}@2"), size=SQUARE)
    assert measure(drawer, drawer.pipeline, ["a red ring"], batch=2, repeats=1, warmup=1)[0].evaluations == 2


def test_a_pipeline_of_pixels_is_timed_without_a_decoder_and_one_without_prompts_is_refused(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2,
                       up_block_types=("UpBlock2D",) * 2)  # fmt: skip

    class Pixels(DDPMPipeline):
        def __call__(self, prompt, generator=None, output_type="np", **options):
            return super().__call__(len(prompt), num_inference_steps=2, output_type=output_type)

    pipeline = Pixels(unet, DDPMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    drawer = StockDrawer("pixels", pipeline, {}, "float32", 8)
    [call] = measure(drawer, pipeline, PROMPTS, batch=3, repeats=1, warmup=1)
    assert call.evaluations == 2 and call.parts["vae"] == call.parts["text"] == 0 < call.parts["transformer"]
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(ValueError, match=r"DDPMPipeline has no .* or takes no prompt; name a text-to-image pipeline"):
        time_subjects([read_subject(f"stock:{tmp_path / 'ddpm'}@1")], PROMPTS, None, "float32", 3, 1, QUIET)


def test_several_models_take_turns_and_a_single_one_does_not(capsys):
    subjects = [read_subject(text) for text in ("scenes@1", "scenes@2")]
    results = time_subjects(subjects, PROMPTS, None, "float32", 4, 1, Console())
    turns = [line for line in capsys.readouterr().out.splitlines() if line.startswith("timing")]
    words = [(f"scenes@{steps}", number) for number in (1, 2, 3) for steps in (1, 2)]
    assert turns == [f"timing {word}, round {number} of 3" for word, number in words]
    assert [result.n for result in results] == [44, 44] and results[0].settings["rounds"] == 3
    [alone] = time_subjects(subjects[:1], PROMPTS, None, "float32", 4, 1, QUIET)
    assert alone.settings["rounds"] == 1 and 0 < alone.scores["B parameters"] < 1


def test_a_model_without_room_alone_costs_a_line_and_not_the_others(tmp_path, monkeypatch, capsys):
    def opened(subject, size, precision):
        if subject.steps == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return open_drawer(subject, size, precision)

    call = timing.Call(1.0, dict.fromkeys((*PARTS, "other"), 0.25), 1.0)
    monkeypatch.setattr(timing, "measure", lambda *_: [call] * 3)
    monkeypatch.setattr(timing, "open_drawer", opened)
    options = ["--repeats", "3", "--warmup", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", "timing", "scenes@1", "scenes@2", *options])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().out
    assert stop.value.code == 1 and "one after another" in said and "images/s" in said
    assert "scenes@2: there is no room for it at batch 10; name a smaller --size" in said
    [file] = (tmp_path / "out").iterdir()
    assert load_result(file).model == "scenes@1"
    with pytest.raises(ValueError, match=r"scenes@2: there is no room .* --size"):
        time_subjects([read_subject("scenes@2")], PROMPTS, None, "auto", 3, 1, QUIET)


def test_rows_are_of_the_first_tensor():
    assert rows_of(None, torch.zeros(()), torch.zeros(4, 2), torch.zeros(9)) == 4
    assert rows_of("x", [torch.zeros(1)] * 3) == 3


def test_a_peak_is_of_its_own_time():
    cpu = torch.device("cpu")
    if not forget_peak(cpu):
        pytest.skip("this system tells no peak")
    before = peak_bytes(cpu)
    block = torch.ones(2**26)  # 256 MiB
    held = peak_bytes(cpu)
    assert held - before > 0.9 * 2**28
    del block
    forget_peak(cpu)
    assert peak_bytes(cpu) < held - 0.5 * 2**28


SUBJECTS = {
    "runs/mine#600@4": ("runs/mine", None, 4, 1.0, False),
    "scenes": ("scenes", None, None, 1.0, False),
    "runs/mine@4": ("runs/mine", None, 4, 1.0, False),
    "a b@50:3": ("a b", None, 50, 3.0, False),
    "stock:p:4.5": ("p", None, None, 4.5, True),
    "p+l/x.safetensors@1": ("p", "l/x.safetensors", 1, 1.0, False),
}


@pytest.mark.parametrize("text", SUBJECTS)
def test_a_subject_is_read_from_a_word(text):
    subject = read_subject(text)
    lora = None if subject.lora is None else str(subject.lora)
    assert (subject.folder, lora, subject.steps, subject.guidance, subject.stock) == SUBJECTS[text]


def test_a_checkpoint_is_a_part_of_the_word():
    for text, checkpoint in (("r/m#600@1", "600"), ("r#best:3", "best"), ("r#latest", "latest"), ("r@2", "latest")):
        assert read_subject(text).checkpoint == checkpoint
    assert read_subject("r#x@1").folder == "r#x"  # a folder of that name


def test_mistakes_cost_a_line(tmp_path):
    for text in ("scenes#best", "stock:scenes#7"):
        with pytest.raises(ValueError, match="scenes is no run, with checkpoints; leave #"):
            open_drawer(read_subject(text))
    with pytest.raises(ValueError, match="at least one step; write p@1"):
        read_subject("p@0")
    with pytest.raises(ValueError, match="is no model"):
        read_subject("")
    with pytest.raises(ValueError, match="write --repeats 5"):
        time_subjects([read_subject("scenes")], PROMPTS, None, "auto", 1, 1, QUIET)
    with pytest.raises(ValueError, match=r"^--precision flaot32: write one of auto, float32, bfloat16$"):
        time_subjects([read_subject("stock:scenes")], PROMPTS, None, "flaot32", 3, 1, QUIET)
    with pytest.raises(ValueError, match="no such folder"):
        open_drawer(read_subject(f"stock:{tmp_path / 'absent'}@1"))
