"""GenEval's judges: what they see of a picture, known answers of their post-processing, tiny networks from disk."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from apexgen.evaluate.geneval import mask2former
from apexgen.evaluate.geneval.colors import Clip, cut_out, to_pixels
from apexgen.evaluate.geneval.detect import Detection
from apexgen.evaluate.geneval.mask2former import Mask2Former, best_pairs, describe, prepare
from apexgen.evaluate.geneval.open_vocabulary import GroundingDino, Owlv2
from apexgen.evaluate.geneval.run import Choice
from apexgen.rules import COLORS
from judges import new_clip_judge, new_grounding_dino, new_mask2former, new_owlv2


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "seen", "padded"),
    [
        ((1024, 1024), (800, 800), (800, 800)),
        ((2000, 1000), (667, 1333), (672, 1344)),  # (width, height) to (height, width)
        ((64, 96), (1200, 800), (1216, 800)),
    ],
)
def test_pictures_are_scaled_and_padded_as_mmdet_does(size, seen, padded):
    pixels, (height, width) = prepare(Image.new("RGB", size, (255, 0, 128)))
    assert pixels.shape == (1, 3, *padded) and (height, width) == seen
    inside = pixels[0, :, :height, :width]
    expected = torch.tensor([(255 - 123.675) / 58.395, -116.28 / 57.12, (128 - 103.53) / 57.375])
    torch.testing.assert_close(inside, expected[:, None, None].expand_as(inside))
    assert (pixels[0, :, height:] == 0).all() and (pixels[0, :, :, width:] == 0).all()


def test_a_query_may_be_of_two_classes_and_never_of_none():
    logits = torch.full((150, 4), -20.0)
    logits[:, 3] = 5  # none
    logits[7, :2], logits[7, 3] = torch.tensor([2.0, 1.0]), -20
    scores, classes, queries = best_pairs(logits)
    assert len(scores) == 100 and classes.max() <= 2
    assert classes[:2].tolist() == [0, 1] and queries[:2].tolist() == [7, 7]
    assert scores[:2].tolist() == pytest.approx([np.e / (np.e + 1), 1 / (np.e + 1)], abs=1e-4)


def test_a_mask_is_what_is_above_zero_and_the_box_its_bounds():
    logits = torch.full((8, 10), -3.0)
    logits[2:5, 4:7] = 1.0
    logits[0, 0] = 0.0  # not above
    seen = describe(0.5, logits)
    assert seen.box == (4, 2, 7, 5) and seen.score == pytest.approx(0.5 / (1 + np.exp(-1)), rel=1e-5)
    assert seen.mask.sum() == 9 and seen.mask[2:5, 4:7].all()
    nothing = describe(0.9, torch.full((4, 4), -1.0))
    assert nothing.box == (0, 0, 0, 0) and nothing.score == 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("judges")
    made = {make.__name__: make(root / make.__name__) for make in (new_mask2former, new_owlv2, new_grounding_dino)}
    return made | {"new_clip_judge": new_clip_judge(root / "new_clip_judge")}


def test_planted_logits_come_back_as_boxes_of_the_pictures_own_size(folders):
    """A picture of 200 x 100 is seen as 1333 x 667, padded to 1344 x 672, with masks of a quarter of that."""
    judge = Mask2Former(folders["new_mask2former"], "tiny", "cpu")
    masks = torch.full((1, 3, 168, 336), -9.0)
    masks[0, 0, :84, :168] = 9.0  # the upper left quarter of the padded whole
    masks[0, 1, 84:, 168:] = 9.0  # reaches into the padding, which is cut off
    masks[0, 2] = 9.0
    classes = torch.full((1, 3, 81), -20.0)
    classes[0, 0, 16] = classes[0, 1, 77] = classes[0, 2, 80] = 20.0  # dog, teddy bear, none
    seen = []

    def network(pixel_values):
        seen.append(pixel_values.shape)
        return SimpleNamespace(masks_queries_logits=masks, class_queries_logits=classes)

    network.device, judge.network = "cpu", network
    found = judge.detect(Image.new("RGB", (200, 100)), ["dog"], 0.3)
    assert seen == [(1, 3, 672, 1344)] and found.keys() == {"dog", "teddy bear"}
    for name, box in (("dog", (0, 0, 101, 50)), ("teddy bear", (101, 50, 200, 100))):
        [thing] = found[name]
        assert np.abs(np.subtract(thing.box, box)).max() <= 1 and thing.score > 0.95 and thing.mask.shape == (100, 200)
    with pytest.raises(ValueError, match="'unicorn' is none of COCO's 80 classes; write --kind owlv2"):
        judge.detect(Image.new("RGB", (200, 100)), ["unicorn"], 0.3)


def test_the_padding_is_no_part_of_the_picture(folders):
    """810 x 10 is seen as 1333 x 16 and padded to 32 rows: what fills the upper half is all there is."""
    judge = Mask2Former(folders["new_mask2former"], "tiny", "cpu")
    masks = torch.full((1, 1, 8, 336), -9.0)
    masks[0, 0, :4] = 9.0
    classes = torch.full((1, 1, 81), -20.0)
    classes[0, 0, 16] = 20.0

    def network(pixel_values):
        return SimpleNamespace(masks_queries_logits=masks, class_queries_logits=classes)

    network.device, judge.network = "cpu", network
    [thing] = judge.detect(Image.new("RGB", (810, 10)), ["dog"], 0.3)["dog"]
    assert thing.box == (0, 0, 810, 10)


def test_a_score_equal_to_the_threshold_in_float32_does_not_count(folders, monkeypatch):
    judge = Mask2Former(folders["new_mask2former"], "tiny", "cpu")
    seen = SimpleNamespace(
        masks_queries_logits=torch.full((1, 3, 8, 8), 60.0), class_queries_logits=torch.zeros(1, 3, 81)
    )
    judge.network = lambda pixel_values: seen
    judge.network.device = "cpu"
    scores = torch.tensor([0.3, 0.3, 0.4]).nextafter(torch.tensor([0.3, 1.0, 0.4]))
    monkeypatch.setattr(mask2former, "best_pairs", lambda logits: (scores, torch.tensor([0, 1, 2]), torch.arange(3)))
    found = judge.detect(Image.new("RGB", (32, 32)), ["person"], 0.3)
    assert {name: things[0].score for name, things in found.items()} == {"bicycle": scores[1], "car": scores[2]}


@pytest.mark.parametrize(
    ("kind", "name", "least", "strict"),
    [(Mask2Former, "new_mask2former", 0.01, 0.2), (Owlv2, "new_owlv2", 0.0, None),
     (GroundingDino, "new_grounding_dino", 0.2, 0.5)],
)  # fmt: skip
def test_detectors_from_disk_find_less_where_more_is_asked(folders, kind, name, least, strict):
    judge, picture, wanted = kind(folders[name], "tiny", "cpu"), noise(120, 90), ["dog", "cat"]
    found = judge.detect(picture, wanted, least)
    things = [(key, thing) for key, group in found.items() for thing in group]
    assert things and all(thing.score > least for _, thing in things)
    assert kind is Mask2Former or found.keys() <= set(wanted)
    limit = strict or float(np.median([thing.score for _, thing in things]))
    again = judge.detect(picture, wanted, limit)
    expected = {(key, thing.box, round(thing.score, 5)) for key, thing in things if thing.score > limit}
    assert {(key, thing.box, round(thing.score, 5)) for key, group in again.items() for thing in group} == expected
    assert 0 < len(expected) < len(things)
    assert all((thing.mask is not None) == (kind is Mask2Former) for _, thing in things)


def test_owlv2_boxes_are_pixels_of_the_picture_not_of_its_padding(folders):
    """The network sees a square: a picture and the same one padded below by hand look alike to it."""
    judge = Owlv2(folders["new_owlv2"], "tiny", "cpu")
    wide, square = Image.new("RGB", (128, 64), (200, 30, 60)), Image.new("RGB", (128, 128))
    one = judge.detect(wide, ["dog"], 0.0)["dog"]
    assert max(thing.box[2] for thing in one) <= 128 * 1.5
    square.paste(wide)
    other = judge.detect(square, ["dog"], 0.0)["dog"]
    np.testing.assert_allclose([t.box for t in one], [t.box for t in other], atol=3)


def test_what_the_mask_leaves_out_is_grey_and_the_box_is_cut():
    picture = Image.new("RGB", (10, 8), (255, 0, 0))
    mask = np.zeros((8, 10), bool)
    mask[2:4, 3:6] = True
    crop = np.asarray(cut_out(picture, Detection((2.4, 1.6, 7.0, 5.0), 1.0, mask)))
    assert crop.shape == (3, 5, 3)  # rows 2 to 5, columns 2 to 7
    assert (crop[:2, 1:4] == (255, 0, 0)).all() and (crop[2] == 0x99).all() and (crop[:, 0] == 0x99).all()
    plain = np.asarray(cut_out(picture, Detection((2, 1, 7, 5), 1.0)))
    assert plain.shape == (4, 5, 3) and (plain == (255, 0, 0)).all()
    assert cut_out(picture, Detection((3.2, 3.2, 3.4, 3.4), 1.0)).size == (1, 1)


@pytest.mark.parametrize("size", [(80, 80), (120, 80), (50, 75)])
def test_clips_input_is_what_its_own_processor_makes(size):
    from transformers import CLIPImageProcessorPil

    picture = noise(*size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = processor(picture, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(to_pixels(picture, 32), expected, atol=1e-5, rtol=1e-5)


def test_a_color_is_the_nearest_mean_of_three_templates(folders):
    from transformers import CLIPTokenizer

    judge, picture = Clip(folders["new_clip_judge"], "tiny", "cpu"), noise(60, 60, seed=3)
    things = [Detection((0, 0, 30, 30), 1.0), Detection((10, 20, 60, 60), 1.0)]
    tokenizer = CLIPTokenizer.from_pretrained(folders["new_clip_judge"])

    def unit(vector):
        return vector / vector.norm(dim=-1, keepdim=True)

    rows = []
    for color in COLORS:
        texts = [f"a photo of a {color} dog", f"a photo of a {color}-colored dog", f"a photo of a {color} object"]
        embeddings = [
            unit(judge.network.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output[0])
            for text in texts
        ]
        rows.append(unit(torch.stack(embeddings).mean(0)))
    pixels = torch.stack([to_pixels(cut_out(picture, thing), 32) for thing in things])
    likeness = unit(judge.network.get_image_features(pixel_values=pixels).pooler_output) @ torch.stack(rows).T
    assert judge.colors(picture, "dog", things) == [COLORS[index] for index in likeness.argmax(1)]
    assert len(set(likeness.argmax(1).tolist()) | {int(likeness[0].argmin())}) > 1


@pytest.mark.parametrize(
    ("kind", "make", "opened"),
    [
        ("owlv2", new_owlv2, Owlv2),
        ("grounding-dino", new_grounding_dino, GroundingDino),
        ("clip", new_clip_judge, Clip),
    ],
)
def test_a_tokenizer_without_its_words_is_refused(kind, make, opened, tmp_path):
    """transformers opens one, and gives every text the same numbers."""
    folder = make(tmp_path / kind)
    whole = new_clip_judge(tmp_path / "whole")
    (folder / "tokenizer.json").unlink()
    found = {"clip": str(folder)} if kind == "clip" else {"kind": kind, "detector": str(folder), "clip": str(whole)}
    with pytest.raises(ValueError, match=r"lacks tokenizer\.json; put all of it there, or: hf download"):
        Choice(**({"detector": str(new_mask2former(tmp_path / "m"))} | found)).find()
    with pytest.raises(ValueError, match=r"a tokenizer to which all words are one; put its tokenizer\.json there"):
        opened(folder, "tiny", "cpu")


def test_weights_that_are_not_the_judges_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="knows 7 classes, not COCO's 80"):
        Mask2Former(new_mask2former(tmp_path / "seven", classes=7), "seven", "cpu")
    headless = new_mask2former(tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "class_predictor" not in name}
    save_file(kept, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks class_predictor\.bias and 1 more weights"):
        Mask2Former(headless, "headless", "cpu")
    (headless / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="can't be opened") as error:
        Mask2Former(headless, "headless", "cpu")
    assert "\n" not in str(error.value)
