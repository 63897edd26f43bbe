"""Prompts that a user gives a command."""

import pytest

from apexgen.config import Data
from apexgen.data import open_source
from apexgen.encode import given_prompts, prompts_in
from stored import picture


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\n a dog \n", encoding="utf-8-sig")
    assert prompts_in(tmp_path / "p.txt", "--prompts") == ["a cat", "a dog"]


def test_a_file_of_prompts_has_the_same_ones_for_every_reader(tmp_path):
    """No line ends at a separator of Unicode's or a control character, which a prompt may hold."""
    prompts = [f"a cat{mark}a dog" for mark in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"] + ["two", "three", "four"]
    (tmp_path / "p.txt").write_bytes("\r\n".join(prompts[:-2]).encode() + b"\rthree\nfour\n")
    assert prompts_in(tmp_path / "p.txt", "--prompts") == prompts
    assert [record.captions for record in open_source(Data(source=str(tmp_path / "p.txt")))] == [(p,) for p in prompts]
    (tmp_path / "p.png").write_bytes(picture(0))
    (record,) = open_source(Data(source=str(tmp_path)))
    assert record.captions == tuple(prompts)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_a_prompt_is_told_so(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ValueError, match=r"^--prompts p\.txt: it has no prompt; write one a line$"):
        prompts_in(tmp_path / "p.txt", "--prompts p.txt")


def test_a_prompt_that_is_no_utf_8_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^--prompt: it is no UTF-8 text: it holds '\\udce9'$"):
        given_prompts([b"caf\xe9".decode("utf-8", "surrogateescape")], None)
