"""Encoding: a cache holds what memory holds, does nothing twice, and outlives a kill."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from rich.console import Console

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data, load_run
from apexgen.data.source import open_source
from apexgen.distill import distill, open_student
from apexgen.encode import encode
from apexgen.encode.start import Stores, _fill
from apexgen.encode.store import Folder, Memory
from apexgen.parallel import Team
from apexgen.scenes.pipeline import FOLDER
from apexgen.size import Size
from apexgen.train import Trainer
from corpora import CAPTIONS, Counted, encoded, same, settings
from pipelines import SIZE, SQUARE
from small import short_run
from stored import picture, write_tar


@pytest.mark.parametrize("when", ["start", "step"])
def test_pictures_are_cut_to_a_size_that_is_no_square(pictures, when):
    net = load_backbone(FOLDER)
    net.size = Size(32, 96)
    batch = encode(settings(pictures, aspect=1.0, encode=when), net, pictures=True).batch(0, 3, 0)
    assert batch.x.shape == (3, *net.latent_shape()) == (3, 8, 4, 12)


def test_a_second_time_nothing_is_encoded(pictures, tmp_path):
    data = settings(pictures, cache=str(tmp_path / "cache"), flip=True)
    first, texts, count = encoded(data)
    assert (texts, count) == (sorted(CAPTIONS), 12)
    second, *nothing = encoded(data)
    assert nothing == [[], 0]
    for step in range(6):
        same(first.batch(step, 2, 0), second.batch(step, 2, 0))


def test_what_changed_is_encoded_and_nothing_else(pictures, tmp_path):
    source, data = tmp_path / "source", settings(tmp_path / "source", cache=str(tmp_path / "cache"))
    shutil.copytree(pictures, source)
    encoded(data)
    (source / "3.txt").write_text("a blue cross")
    assert encoded(data)[1:] == (["a blue cross"], 0)
    shutil.copy(source / "0.png", source / "1.png")  # a picture that is known, under another name
    assert encoded(data)[1:] == ([], 0)
    Image.new("RGB", (64, 64), "red").save(source / "1.png")
    assert encoded(data)[1:] == ([], 1)
    for place in range(3):
        (source / f"{place}.png").rename(source / f"moved-{place}.png")
        (source / f"{place}.txt").rename(source / f"moved-{place}.txt")
    assert encoded(data)[1:] == ([], 0)


def test_runs_of_two_sizes_share_a_cache_and_each_has_its_own_records(pictures, tmp_path):
    """So that neither reads the other's, whichever was written last."""
    shapes = []
    for size in (Size(32, 32), Size(64, 64)):
        net = load_backbone(FOLDER)
        net.size = size
        corpus = encode(settings(pictures, aspect=1.0, cache=str(tmp_path / "cache")), net, pictures=True)
        shapes.append((corpus.batch(0, 2, 0).x.shape[2:], net.latent_shape()[1:]))
    assert all(found == wanted for found, wanted in shapes)
    assert len(list((tmp_path / "cache").glob("records-*.safetensors"))) == 2


@pytest.mark.parametrize(("part", "again"), [("vae", ([], 6)), ("text_encoder", (sorted(CAPTIONS), 0))])
def test_a_changed_model_is_encoded_with_again(pictures, tmp_path, part, again):
    pipeline, data = tmp_path / "pipeline", settings(pictures, cache=str(tmp_path / "cache"))
    shutil.copytree(FOLDER, pipeline)
    before, *_ = encoded(data, pipeline)
    net = load_backbone(pipeline)
    module = getattr(net.pipeline, part)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(1.1)
    module.save_pretrained(pipeline / part)
    after, *work = encoded(data, pipeline)
    assert tuple(work) == again
    one, other = before.batch(0, 2, 0), after.batch(0, 2, 0)
    assert one.x.equal(other.x) == (part != "vae") and one.c.embeds.equal(other.c.embeds) == (part == "vae")


def test_text_encoders_in_another_type_encode_again_and_pictures_stay(folders, pictures, tmp_path):
    data, kept = settings(pictures, cache=str(tmp_path / "cache")), {}
    for weights, count in (("float32", 6), ("bfloat16", 6), ("float32", 0)):
        net = load_backbone(folders["sd3"], weights=weights)
        own, counted = net.encode_text(["a red ring"]).embeds[0].float(), Counted(net)
        corpus = encode(data, net, pictures=True)
        assert len(counted.texts) == count and counted.pictures == (6 if not kept else 0)
        c = corpus.conditions.select(torch.tensor([list(corpus.prompts).index("a red ring")]))
        kept[weights] = c.embeds[0]
        assert torch.equal(kept[weights], own[: len(kept[weights])])
    assert not torch.equal(kept["float32"], kept["bfloat16"])


def test_a_cache_in_bfloat16_is_rounded_and_half_as_large(pictures, tmp_path):
    data = [settings(pictures, cache=str(tmp_path / dtype), cache_dtype=dtype) for dtype in ("float32", "bfloat16")]
    whole, rounded = (encoded(each)[0].batch(0, 2, 0) for each in data)
    assert rounded.x.dtype == torch.float32
    assert torch.equal(rounded.x, whole.x.bfloat16().float()) and not torch.equal(rounded.x, whole.x)
    latents = [
        sum(f.stat().st_size for f in tmp_path.glob(f"{dtype}/latents-*/*")) for dtype in ("float32", "bfloat16")
    ]
    assert 1.7 < latents[0] / latents[1] < 2


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen", "lumina2", "zimage"])
def test_every_family_trains_alike_from_memory_and_from_a_cache_on_every_size(
    folders, family, pictures, tmp_path, monkeypatch
):
    """Bitwise, with the latents' shape the batch's own; a cache that is whole needs no text encoder."""
    trained = []
    for cache in ([], [f"data.cache={tmp_path / 'cache'}"]):
        about = [f"model.path={folders[family]}", f"model.size={SIZE}", "model.rank=1", "model.precision=float32"]
        data = [f"data.source={pictures}", "data.aspect=4", "data.flip=true", "data.drop_captions=0.3"]
        run = load_run(None, ["objective.name=flow_matching", "train.batch=2", "train.steps=9", *about, *data, *cache])
        net = load_backbone(folders[family])
        net.size = SQUARE
        corpus = encode(run.data, net, pictures=True)
        trainer = Trainer(run, open_student(run, net), corpus, net.latent_shape())
        shapes = {tuple(corpus.batch(step, 2, 0).x.shape[2:]) for step in range(3)}
        assert len(shapes) > 1
        for _ in range(3):
            trainer.advance()
        trained.append({name: weight.detach() for name, weight in trainer.student.trained.items()})
    no_text_encoder(monkeypatch)
    net = load_backbone(folders[family], with_text=False)
    net.size = SQUARE
    again = encode(run.data, net, pictures=True)
    same(again.batch(0, 2, 0), corpus.batch(0, 2, 0))
    assert not net.holds_text
    monkeypatch.undo()
    assert torch.equal(
        net.encode_text(["a red ring"]).embeds, load_backbone(folders[family]).encode_text(["a red ring"]).embeds
    )
    memory, cached = trained
    assert all(torch.equal(memory[name], cached[name]) for name in memory)
    assert any(weight.abs().sum() > 0 for name, weight in memory.items() if "lora_B" in name)


def test_of_many_files_each_process_reads_its_own_and_together_they_find_what_one_does(tmp_path):
    """Bad records and all, in the same order; a caption of two files is one."""
    for number in range(8):
        caption = b"" if number == 5 else CAPTIONS[number % 3].encode()
        write_tar(tmp_path / f"{number}.tar", [("0.png", picture(number)), ("0.txt", caption)])
    data, net, found = settings(tmp_path / "*.tar"), load_backbone(FOLDER), []
    for team in (Team(0, 1), Team(0, 2), Team(1, 2)):
        source = open_source(data)
        found.append(_fill(source, data, net, Stores(Memory(), Memory()), Console(quiet=True), team))
    (alone, skipped), *shares = found
    assert [one.seen for _, one in shares] == [4, 4] and skipped.seen == 8
    together = shares[0][0] + shares[1][0]
    assert together.records() == alone.records() and together.captions == alone.captions
    assert (shares[0][1] + shares[1][1]).why == skipped.why and len(skipped.why) == 1
    assert len(alone.captions) == 3 and len(alone.table().rows) == 7


def no_text_encoder(monkeypatch):
    """Whoever opens one fails."""
    import transformers

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("it was opened"))


def test_a_run_from_a_cache_ends_like_one_from_memory_and_both_free_their_encoders(tmp_path, monkeypatch):
    """A run whose cache is whole never opens the text encoder."""
    ends, cache = [], [f"data.cache={tmp_path / 'cache'}"]
    for name, given in (("memory", []), ("cached", cache), ("again", cache)):
        if name == "again":
            no_text_encoder(monkeypatch)
        trainer, _ = distill(
            short_run(tmp_path / name, "train.steps=2", "objective.warmup=0", *given), Console(quiet=True)
        )
        ends.append({name: weight.detach() for name, weight in trainer.student.trained.items()})
        pipeline = trainer.student.backbone.pipeline
        assert pipeline.text_encoder is None and not list(pipeline.vae.encoder.parameters())
    assert all(torch.equal(ends[0][name], one[name]) for one in ends for name in one)
    assert (tmp_path / "cached" / "samples" / "step-000002.png").is_file()


def test_a_cache_tells_of_every_source_of_a_mixture(pictures, tmp_path):
    shares = [{"source": str(pictures)}, {"source": str(pictures), "weight": 2.0}]
    encoded(Data.model_validate({"mixture": shares, "cache": str(tmp_path)}))
    [listed] = tmp_path.glob("records-*.json")
    said = json.loads(listed.read_text())["source"]
    assert said.startswith(f"a mixture: 33.3% of {pictures}, a folder") and f"; 66.7% of {pictures}" in said


def test_what_another_process_has_half_written_is_not_read_and_a_killed_one_leaves_nothing(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (os.getpid(), ended.pid):
        for name, age in (("new", 0), ("old", 99)):
            file = tmp_path / f".partial-{process}-{name}.safetensors"
            file.write_bytes(b"")
            os.utime(file, times=(time.time() - age,) * 2)
    assert bytes(16) not in Folder(tmp_path, torch.float32)
    assert len(list(tmp_path.iterdir())) == 3 and not (tmp_path / f".partial-{ended.pid}-old.safetensors").exists()


def test_any_key_is_found(tmp_path):
    store = Folder(tmp_path, torch.float32)
    keys = [bytes([first, *[7] * 14, last]) for first in (0, 9, 255) for last in (0, 1, 255)]
    for value, key in enumerate(keys):
        store.add(key, {"latents": torch.full((2,), float(value))})
    store.flush()
    store.reopen()
    assert [float(store[key]["latents"][0]) for key in keys] == list(range(9))
    assert bytes(16) not in store and all(key in store for key in keys)
