"""A DPG-Bench of three items in the official layout, its pictures, and a judge of them."""

import csv

from rich.console import Console

from apexgen.evaluate.dpg_run import run
from apexgen.evaluate.source import Judging, Source
from stub_server import Stub, serving, write_picture

CONSOLE = Console(quiet=True)
COLUMNS = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
ITEMS = {"0": "red", "COCOval2014000000010363": "green", "whoops34": "blue"}


def rows(item, color):
    """Three questions of an item: the third depends on the second, that on the first."""
    for number, (parents, kind) in enumerate(
        [("0", "entity - whole"), ("1", "attribute - color"), ("2, 1", "global")], 1
    ):
        question = f"Is it {color}, quite, {number}?"
        yield [item, f"a {color} field, wide", "", number, parents, "", "", f"{kind} (field, {number})", question]


def write_data(folder, table=None):
    """The benchmark's folder: the prompts, and the table of their questions."""
    (folder / "prompts").mkdir(parents=True)
    for item, color in ITEMS.items():
        (folder / "prompts" / f"{item}.txt").write_text(f"a {color} field, wide\n")
    with (folder / "dpg_bench.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(COLUMNS.split(","))
        writer.writerows(table or [row for item, color in ITEMS.items() for row in rows(item, color)])
    return folder


def grids(folder, **changed):
    """A picture of four crops for each item, right unless changed."""
    for item, color in ITEMS.items():
        write_picture(folder / f"{item}.png", *changed.get(item, [color] * 4))
    return folder


def judge_with(says, data, out, pictures, strict=False, crops=4):
    """What a server that says so tells of the pictures."""
    with serving(Stub(says)) as address:
        source = Source(out, pictures=pictures, name="x")
        return run(data, source, Judging(address, "stub"), 0, crops, strict, CONSOLE)
