"""What a run shows while it trains."""

import io

import pytest
from rich.console import Console

from apexgen.distill import distill
from small import short_run


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ('{name="apex", warmup=0, pair_steps=2, pair_share=0.5}', ["fake", "anchor", "gap", "pairs", "kl"]),
        ('{name="dmd", warmup=0}', ["fake", "generator", "gap"]),
        ('{name="rcgm"}', ["rcgm"]),
    ],
)
def test_the_bar_has_room_for_its_count_and_every_term_a_line(tmp_path, objective, terms):
    """In 80 columns; beside the bar they had cut the count short, and there were none of most objectives."""
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
    distill(short_run(tmp_path / "run", "train.steps=2", f"objective={objective}"), console)
    lines = console.file.getvalue().splitlines()
    shown = next(line for line in reversed(lines) if terms[0] in line)
    assert [word for word in shown.split() if word.isidentifier()] == terms
    assert any("2/2" in line for line in lines) and "…" not in console.file.getvalue()
