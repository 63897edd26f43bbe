"""GenEval: its files as others have them, an oracle that scores 1, a liar that scores 0, stops that cost nothing."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from apexgen.evaluate.geneval.detect import Detection, Selection, overlap
from apexgen.evaluate.geneval.judge import Judge, judge_pictures, read_results, scores
from apexgen.evaluate.geneval.records import DATA, class_names, lay_out, read_folder, read_records
from apexgen.evaluate.geneval.run import to_result
from apexgen.files import alone

CONSOLE = Console(quiet=True)


def test_the_official_prompts_are_all_there():
    """The bytes that GenEval's own procedure gives, whose prompts were compared with copies of the official file."""
    digest = hashlib.sha256((DATA / "evaluation_metadata.jsonl").read_bytes()).hexdigest()
    assert digest == "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
    assert "Copyright (c) 2023 Dhruba Ghosh" in (DATA / "NOTICE").read_text()
    records = read_records()
    tags = Counter(record["tag"] for record in records)
    assert len(records) == 553 and list(tags.values()) == [80, 99, 80, 94, 100, 100]
    assert len({json.dumps(record) for record in records}) == 553
    clocks = {"tag": "counting", "include": [{"class": "clock", "count": 2}],
              "exclude": [{"class": "clock", "count": 3}], "prompt": "a photo of two clocks"}  # fmt: skip
    assert records[179] == clocks
    assert records[457]["prompt"] == "a photo of a pink oven and a green motorcycle"
    assert records[530]["prompt"] == "a photo of a purple suitcase and an orange pizza"
    dogs = next(record for record in records if record["prompt"] == "a photo of a dog right of a teddy bear")
    assert dogs["include"][1] == {"class": "dog", "count": 1, "position": ["right of", 0]}
    names = class_names()
    assert len(names) == 80 and (names[0], names[79]) == ("person", "toothbrush")
    assert names[64:67] == ["computer mouse", "tv remote", "computer keyboard"]
    asked = {thing["class"] for record in records for thing in record["include"]}
    assert asked <= set(names)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ('{"tag": "colors", "include": []}', "line 2: prompt is missing"),
        ('{"tag": "a", "prompt": "b", "include": [{"class": "dog", "count": 0}]}', "line 2: include.0.count = 0"),
        ('{"tag": "a", "prompt": "b", "include": [{"class": "dog", "count": 1, "position": ["near", 0]}]}', "position"),
        (
            '{"tag": "a", "prompt": "b", "include": [{"class": "dog", "count": 1, "position": ["above", 0]}]}',
            "write one before 0",
        ),
    ],
)
def test_a_bad_line_of_metadata_is_named(tmp_path, line, message):
    file = tmp_path / "metadata.jsonl"
    file.write_text('{"tag": "a", "prompt": "b", "long": "kept"}\n' + line)
    with pytest.raises(ValueError) as error:
        read_records(file)
    assert message in str(error.value) and "\n" not in str(error.value)


def seen(score, left=0.0, side=10.0):
    return Detection((left, 0.0, left + side, side), score)


def test_thresholds_are_exclusive_and_stricter_for_counts():
    tie = float(np.float32(0.3))  # as a network tells it: above .3 in float64 alone
    assert tie > 0.3
    found = {"dog": [seen(0.3), seen(0.31), seen(0.95), seen(0.9)], "cat": [seen(0.3), seen(tie)]}
    kept = Selection().select(found, "colors")
    assert [thing.score for thing in kept["dog"]] == [0.95, 0.9, 0.31] and "cat" not in kept
    assert [thing.score for thing in Selection().select(found, "counting")["dog"]] == [0.95]


def test_at_most_sixteen_of_a_class_count_and_equal_boxes_are_not_struck_out():
    found = {"dog": [seen(0.5 + index / 100) for index in range(20)]}
    kept = Selection().select(found, "colors")["dog"]
    assert [thing.score for thing in kept] == [0.5 + index / 100 for index in range(19, 3, -1)]


def test_overlapping_boxes_are_struck_out_where_asked():
    found = {"dog": [seen(0.9), seen(0.8, 1), seen(0.7, 6), seen(0.6, 100)]}
    kept = Selection(max_overlap=0.5).select(found, "colors")["dog"]
    assert [thing.score for thing in kept] == [0.9, 0.7, 0.6]
    assert overlap((0, 0, 9, 9), (0, 0, 9, 9)) == 1
    assert overlap((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)  # ends are pixels too
    assert overlap((0, 0, 9, 9), (10, 0, 19, 9)) == 0


class Oracle:
    """Knows what each picture should hold, by a number in its first pixel, and finds just that."""

    name = "oracle"

    def __init__(self, records, lies=False):
        self.records, self.lies, self.looked = records, lies, 0

    def detect(self, picture, wanted, least):
        self.looked += 1
        red, green, _ = picture.getpixel((0, 0))
        found, centers = {}, []
        for number, asked in enumerate(self.records[256 * red + green]["include"]):
            relation, target = asked.get("position", (None, 0))
            shift = {"left of": (-100, 0), "right of": (100, 0), "above": (0, -100), "below": (0, 100)}
            x, y = shift[relation] if relation else (300 * number, 0)
            base = centers[target] if relation else (500, 500)
            centers.append((base[0] + x, base[1] + y))
            box = (centers[-1][0] - 5, centers[-1][1] - 5, centers[-1][0] + 5, centers[-1][1] + 5)
            things = [Detection(box, 0.99, number) for _ in range(asked["count"])]
            found.setdefault(asked["class"], []).extend(things)
        return {} if self.lies else found

    def colors(self, picture, name, things):
        red, green, _ = picture.getpixel((0, 0))
        return [self.records[256 * red + green]["include"][thing.mask]["color"] for thing in things]


def numbered(folder, records, samples=1):
    """An official folder whose pictures know their record's number."""
    for job in lay_out(folder, records, samples, 42):
        index = int(job.path[:5])
        (folder / job.path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (index // 256, index % 256, 0)).save(folder / job.path)
    return read_folder(folder)


def judge_of(oracle):
    return Judge(oracle, oracle, Selection())


def test_an_oracle_scores_one_and_a_liar_nothing(tmp_path):
    records = read_records()
    pictures = numbered(tmp_path / "pictures", records)
    for lies, expected in ((False, 1.0), (True, 0.0)):
        lines = judge_pictures(tmp_path / str(lies), pictures, judge_of(Oracle(records, lies)), {}, CONSOLE)
        told, spread = scores(lines)
        assert len(lines) == 553 and set(told.values()) == {expected} and set(spread.values()) == {0.0}
        assert len(told) == 6 + 3
    result = to_result(lines, "oracle", "oracle", "me", {})
    assert result.benchmark == "GenEval[oracle]" and result.n == 553 and result.settings["prompts"] == 553


SOME = read_records()[178:184]


def test_the_folder_is_the_official_one_and_four_digits_are_read_too(tmp_path):
    jobs = lay_out(tmp_path, SOME, samples=4, seed=42)
    assert [job.path for job in jobs[:4]] == [f"00000/samples/{i:05}.png" for i in range(4)]
    assert [job.seed for job in jobs] == [42, 43, 44, 45] * len(SOME)
    assert json.loads((tmp_path / "00003" / "metadata.jsonl").read_text()) == SOME[3]
    numbered(tmp_path, SOME)
    (tmp_path / "00001").rename(tmp_path / "0001")
    for name in ("00000/samples/grid.png", "00000/samples/1.txt", "00000/grid.png"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "notes").mkdir()
    read = read_folder(tmp_path)
    assert [record for _, record in read] == SOME and read[1][0].parts[-3:] == ("0001", "samples", "00000.png")
    (tmp_path / "0001" / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match=r"0001/metadata\.jsonl is missing"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="holds no pictures"):
        read_folder(tmp_path / "notes")


def test_a_folder_of_other_records_is_refused_and_nothing_is_written(tmp_path):
    lay_out(tmp_path, SOME[:2], samples=1, seed=42)
    lay_out(tmp_path, [dict(reversed(SOME[0].items()))], samples=1, seed=42)  # the same, written otherwise
    changed = SOME[1] | {"include": [{"class": "dog", "count": 2}]}
    with pytest.raises(ValueError, match=r"00001/metadata\.jsonl is of another record .*; give another --out"):
        lay_out(tmp_path, [SOME[0], changed, SOME[2]], samples=1, seed=42)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["00000", "00001"]


def test_a_stopped_judge_goes_on_and_keeps_what_it_said(tmp_path):
    pictures, oracle = numbered(tmp_path / "pictures", SOME, samples=2), Oracle(SOME)
    whole = judge_pictures(tmp_path / "out", pictures, judge_of(oracle), {}, CONSOLE)
    file = tmp_path / "out" / "results.jsonl"
    content = file.read_bytes()
    assert oracle.looked == len(pictures) == 12
    file.write_bytes(b"".join(content.splitlines(keepends=True)[:5]) + b'{"filename": "torn')
    assert judge_pictures(tmp_path / "out", pictures, judge_of(oracle), {}, CONSOLE) == whole
    assert oracle.looked == 12 + 7 and file.read_bytes() == content
    other = Judge(oracle, oracle, Selection(threshold=0.2))
    with pytest.raises(ValueError, match=r"threshold = 0\.3, not 0\.2"):
        judge_pictures(tmp_path / "out", pictures, other, {}, CONSOLE)


def test_a_replaced_picture_is_judged_anew_and_another_way_to_its_path_is_not(tmp_path, monkeypatch):
    pictures, oracle, out = numbered(tmp_path / "pictures", SOME), Oracle(SOME), tmp_path / "out"
    whole = judge_pictures(out, pictures, judge_of(oracle), {}, CONSOLE)
    monkeypatch.chdir(tmp_path)
    relative = [(path.relative_to(tmp_path), record) for path, record in pictures]
    assert judge_pictures(out, relative, judge_of(oracle), {}, CONSOLE) == whole and oracle.looked == len(SOME)
    pictures[2][0].write_bytes(pictures[0][0].read_bytes())  # now it shows what another prompt asked for
    for folder in (relative, pictures):
        told = judge_pictures(out, folder, judge_of(oracle), {}, CONSOLE)
        assert oracle.looked == len(SOME) + 1 and len(read_results(out / "results.jsonl")) == len(SOME)
        assert [line["correct"] for line in told] == [index != 2 for index in range(len(SOME))]
        assert read_results(out / "results.jsonl") == told


def test_a_picture_that_is_gone_leaves_the_result_file(tmp_path):
    pictures, oracle, out = numbered(tmp_path / "pictures", SOME), Oracle(SOME), tmp_path / "out"
    judge_pictures(out, pictures, judge_of(oracle), {}, CONSOLE)
    left = judge_pictures(out, pictures[1:], judge_of(oracle), {}, CONSOLE)
    assert read_results(out / "results.jsonl") == left and len(left) == len(SOME) - 1
    assert oracle.looked == len(SOME)


def test_ranks_judge_their_shares_and_make_the_same_file(tmp_path, monkeypatch):
    pictures, oracle, out = numbered(tmp_path / "pictures", SOME, samples=2), Oracle(SOME), tmp_path / "ranks"
    whole = judge_pictures(tmp_path / "one", pictures, judge_of(oracle), {}, CONSOLE)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, told in ((2, None), (0, None), (1, whole)):
        monkeypatch.setenv("RANK", str(rank))
        if rank == 1:
            with (out / "results-2.jsonl").open("ab") as torn:  # one that is being written, or was torn by a kill
                torn.write(b'{"filename": "x')
        assert judge_pictures(out, pictures, judge_of(oracle), {}, CONSOLE) == told
    assert oracle.looked == 2 * len(pictures)
    assert (out / "results.jsonl").read_bytes() == (tmp_path / "one" / "results.jsonl").read_bytes()
    with alone(out, rank=1), pytest.raises(ValueError, match="another process is at work"):
        judge_pictures(out, pictures, judge_of(oracle), {}, CONSOLE)
