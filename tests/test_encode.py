"""Encoding: a cache holds what memory holds, does nothing twice, and outlives a kill."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from rich.console import Console

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data, load_run
from apexgen.data.corpus import Corpus
from apexgen.data.source import open_source
from apexgen.distill import distill, open_student
from apexgen.encode import encode
from apexgen.encode.start import Stores, _fill
from apexgen.encode.store import Folder, Memory
from apexgen.parallel import Team
from apexgen.scenes.pipeline import FOLDER
from apexgen.size import Size
from apexgen.train import Trainer
from pipelines import SIZE, SQUARE
from small import short_run
from stored import picture, write_tar

CAPTIONS = ("a red circle", "two rings", "a photo of a white cross", "a blue square", "three rings", "a red ring")
SHAPES = ((64, 64), (32, 128), (70, 66), (128, 32), (40, 160), (64, 60))  # height, width


def write_pictures(folder: Path) -> Path:
    """Six captioned pictures of several shapes."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for place, (caption, shape) in enumerate(zip(CAPTIONS, SHAPES, strict=True)):
        pixels = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        (folder / f"{place}.txt").write_text(caption)
    return folder


class Counted:
    """Counts what a backbone's encoders are given."""

    def __init__(self, backbone):
        self.texts, self.pictures = [], 0
        text, image = backbone.encode_text, backbone.encode_image

        def encode_text(prompts):
            self.texts += [prompt for prompt in prompts if prompt]  # not the empty one
            return text(prompts)

        def encode_image(pictures):
            self.pictures += len(pictures)
            return image(pictures)

        backbone.encode_text, backbone.encode_image = encode_text, encode_image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "folder")


def settings(source, **others):
    return Data(**{"source": str(source), "aspect": 4.0} | others)


def encoded(data, pipeline=FOLDER):
    """The corpus, the captions that were encoded for it, and how many pictures."""
    net = load_backbone(pipeline)
    counted = Counted(net)
    corpus = encode(data, net, pictures=True)
    return corpus, sorted(counted.texts), counted.pictures


def same(one, other):
    assert torch.equal(one.x, other.x)
    for name in ("embeds", "mask", "pooled"):
        a, b = getattr(one.c, name), getattr(other.c, name)
        assert (a is None and b is None) or torch.equal(a, b)


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
    for name, settings in (("memory", []), ("cached", cache), ("again", cache)):
        if name == "again":
            no_text_encoder(monkeypatch)
        trainer, _ = distill(
            short_run(tmp_path / name, "train.steps=2", "objective.warmup=0", *settings), Console(quiet=True)
        )
        ends.append({name: weight.detach() for name, weight in trainer.student.trained.items()})
        pipeline = trainer.student.backbone.pipeline
        assert pipeline.text_encoder is None and not list(pipeline.vae.encoder.parameters())
    assert all(torch.equal(ends[0][name], one[name]) for one in ends for name in one)
    assert (tmp_path / "cached" / "samples" / "step-000002.png").is_file()


def test_what_is_bad_is_left_out_listed_and_not_too_much_of_it(pictures, tmp_path):
    source = shutil.copytree(pictures, tmp_path / "source")
    (source / "2.png").write_bytes((source / "2.png").read_bytes()[:99])
    (source / "5.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2 of 6 records are bad; the first is .*; mend them") as refused:
        encoded(settings(source))
    assert "\n" not in str(refused.value)
    corpus, *_ = encoded(settings(source, aspect=1.0, bad_limit=0.5, cache=str(tmp_path / "cache")))
    assert len(corpus) == 4
    assert sorted(corpus.names(0, 4, 0)) == [f"{number}.png" for number in (0, 1, 3, 4)]
    [listed] = (tmp_path / "cache").glob("records-*.json")
    bad = json.loads(listed.read_text())["bad"]
    assert bad.keys() == {"2.png", "5.png"} and all("can't be read" in reason for reason in bad.values())


def test_a_cache_tells_of_every_source_of_a_mixture(pictures, tmp_path):
    shares = [{"source": str(pictures)}, {"source": str(pictures), "weight": 2.0}]
    encoded(Data.model_validate({"mixture": shares, "cache": str(tmp_path)}))
    [listed] = tmp_path.glob("records-*.json")
    said = json.loads(listed.read_text())["source"]
    assert said.startswith(f"a mixture: 33.3% of {pictures}, a folder") and f"; 66.7% of {pictures}" in said


def test_a_bad_picture_takes_no_record_of_a_like_name_with_it(tmp_path):
    """Parquet files of one name in two folders, and a table that names a good picture twice."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        images = [b"no picture" if (folder, n) == ("x", 2) else picture(n) for n in range(5)]
        table = pa.table({"text": [f"{folder} {n}" for n in range(5)], "image_bytes": images})
        parquet.write_table(table, tmp_path / folder / "part-0.parquet")
    corpus, texts, _ = encoded(settings(tmp_path / "*/*.parquet", bad_limit=0.5))
    assert len(corpus) == 9 and {"x 1", "y 2"} <= set(texts)
    assert list(corpus.skipped.why) == ["x/part-0.parquet:2"] and corpus.skipped.seen == 10
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n' * 3)
    corpus, *_ = encoded(settings(tmp_path / "metadata.jsonl", bad_limit=0.9))
    assert len(corpus) == 1 and list(corpus.skipped.why) == ["a.png, record 2", "a.png, record 3"]


def test_a_broken_shard_is_named(pictures, tmp_path):
    data = settings(pictures, cache=str(tmp_path / "cache"))
    encoded(data)
    [shard] = (tmp_path / "cache").glob("latents-*/*")
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(ValueError, match=rf"{shard.name} can't be read .*; remove it, and it is made again"):
        encoded(data)
    shard.unlink()
    assert encoded(data)[1:] == ([], 6)


def test_what_another_process_has_half_written_is_not_read(tmp_path):
    (tmp_path / ".partial-7-shard.safetensors").write_bytes(b"")
    assert bytes(16) not in Folder(tmp_path, torch.float32)


def test_any_key_is_found(tmp_path):
    store = Folder(tmp_path, torch.float32)
    keys = [bytes([first, *[7] * 14, last]) for first in (0, 9, 255) for last in (0, 1, 255)]
    for value, key in enumerate(keys):
        store.add(key, {"latents": torch.full((2,), float(value))})
    store.flush()
    store.reopen()
    assert [float(store[key]["latents"][0]) for key in keys] == list(range(9))
    assert bytes(16) not in store and all(key in store for key in keys)


@pytest.mark.parametrize("field", ["flip = true", "aspect = 2.0"])
def test_settings_of_pictures_need_pictures(field):
    name, _, value = field.partition(" = ")
    with pytest.raises(ValueError, match=rf"data\.{name} is of pictures"):
        encode(Data(**{name: json.loads(value)}), load_backbone(FOLDER), pictures=False)


def corpus_of(**fields):
    """Eight records with two captions each, the first drawn three times of four; row r of all columns is full of r."""
    from apexgen.condition import Condition

    rows = torch.arange(16).reshape(8, 2)
    c = Condition(torch.arange(16.0)[:, None, None].expand(16, 3, 2), torch.ones(16, 3, dtype=torch.bool))
    null = Condition(torch.full((1, 3, 2), -1.0), torch.ones(1, 3, dtype=torch.bool))
    weights = torch.tensor([[0.75, 0.25]] * 7 + [[1.0, 0.0]])
    return Corpus([""] * 16, c, rows, null, torch.arange(16.0)[:, None, None, None], weights, **fields)


def test_captions_are_drawn_by_weight_dropped_and_mirrored_by_share():
    corpus, seen = corpus_of(drop=0.2, flip=True), Counter()
    for step in range(500):
        batch = corpus.batch(step, 8, 0)
        for caption, latent in zip(batch.c.embeds[:, 0, 0].tolist(), batch.x.flatten().tolist(), strict=True):
            assert caption == -1 or caption // 2 == latent % 8
            seen.update(["dropped" if caption == -1 else f"caption {caption % 2:.0f}"])
            seen.update(["mirrored"] * (latent >= 8) + ["unseen"] * (caption == 15))
    assert seen["unseen"] == 0
    for name, share in (("dropped", 0.2), ("mirrored", 0.5), ("caption 1", 0.8 * 0.25 * 7 / 8)):
        assert seen[name] / 4000 == pytest.approx(share, abs=0.03)


def test_rows_of_a_batch_are_those_of_the_whole():
    corpus = corpus_of(drop=0.2, flip=True)
    whole, part = corpus.batch(3, 8, 1), corpus.batch(3, 8, 1, slice(2, 5))
    assert torch.equal(part.x, whole.x[2:5]) and torch.equal(part.c.embeds, whole.c.embeds[2:5])
