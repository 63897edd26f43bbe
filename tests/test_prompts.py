"""Prompts that a user gives a command."""

import pytest

from apexgen.encode import given_prompts, prompts_in


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\n a dog \n", encoding="utf-8-sig")
    assert prompts_in(tmp_path / "p.txt", "--prompts") == ["a cat", "a dog"]


def test_a_prompt_that_is_no_utf_8_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^--prompt: it is no UTF-8 text: it holds '\\udce9'$"):
        given_prompts([b"caf\xe9".decode("utf-8", "surrogateescape")], None)
