"""How APEX shifts the condition: the settings of Eq. 9 of https://arxiv.org/abs/2604.12322, A and b "fixed or learned".

A learned shift is moved by Eq. 12 alone: it seeks the condition under which the network tells its own samples best, and
nothing there forbids the real condition, at which the two roles are one. `apart` keeps it at a right angle or beyond;
what a norm takes out of the text, its length, does not count. A shift that starts as the real condition, a = 1, has no
gradient of `apart` to leave it by.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch

from apexgen.objectives.base import Loss, Objective
from apexgen.objectives.check import line, one_of, unused, within
from apexgen.shift import Form, Place, Shift, affine, scalar


@dataclass(frozen=True)
class Shifting(Objective):
    """What c_fake = A c + b is, and the term that holds a learned one apart from c."""

    shift_form: Form = "scalar"  # of A: a I; a times random signs; a times a reflection of shift_rank directions
    shift_scale: float = -1.0  # a; a = 1 with b = 0 is no shift, the control
    shift_bias: float = 0.0  # b
    shift_rank: int = 8  # of a low-rank form
    shift_place: Place = "condition"  # or after the network's own projection of the text, as in the released code
    shift_learned: bool = False  # train A and b from there on
    shift_apart: float = 1.0  # weight of what holds a learned shift apart; at 0 nothing does: a control only

    def __post_init__(self) -> None:
        one_of(self, "shift_form", ("scalar", "diagonal", "low-rank"))
        one_of(self, "shift_place", ("condition", "projection"))
        within(self, "shift_rank", 1)
        within(self, "shift_apart", 0)
        if self.shift_form != "low-rank":
            unused(self, ("shift_rank",), line("shift_form", self.shift_form))
        if not self.shift_learned:
            unused(self, ("shift_apart",), "shift_learned = false")
            if self.shift_scale == 0:
                unused(self, ("shift_form",), "shift_scale = 0")

    @property
    def is_plain(self) -> bool:
        """Whether the shift is two fixed numbers, as in the paper."""
        return self.shift_form == "scalar" and not self.shift_learned

    @property
    def plain_shift(self) -> Shift:
        """The shift of Eq. 9 with A = a I and b = b 1, where it is plain; others are Nets.shift."""
        assert self.is_plain, "Nets.shift is missing"
        return scalar(self.shift_scale, self.shift_bias, self.shift_place)

    def new_shift(self, text: int, pooled: int | None, seed: int) -> Shift | None:
        """ValueError where a low-rank form has more directions than the text has channels."""
        if self.is_plain:
            return None
        least = min(text, pooled or text)
        if self.shift_form == "low-rank" and self.shift_rank > least:
            raise ValueError(f"shift_rank = {self.shift_rank}: there are {least} channels; write shift_rank = {least}")
        generator = torch.Generator().manual_seed(seed)
        maps = [
            affine(self.shift_form, self.shift_scale, self.shift_bias, width, min(self.shift_rank, width), generator)
            for width in (text, pooled)
            if width is not None
        ]
        return Shift(maps[0], maps[1] if pooled else None, self.shift_place, self.shift_learned)

    def apart_terms(self, shift: Shift | None) -> Iterator[Loss]:
        """The term apart, where the shift is learned, of what it was last given."""
        if self.shift_learned:
            assert shift is not None, "Nets.shift is missing"
            nearness = shift.nearness()
            yield Loss("apart", self.shift_apart * nearness, {"nearness": nearness.detach()})


SHIFT_FIELDS = tuple(field.name for field in fields(Shifting))
