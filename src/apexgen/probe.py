"""Is the shifted condition visible to a backbone? A fake field is learnt only as far as F(., c_fake) is not F(., c).

Networks that normalise the text (Qwen-Image, Lumina-Image and Z-Image as it comes, SANA after its projection) lose its
positive scale: a > 0 with b = 0 is no shift at all. So what a shift does to the velocity is measured, at the points
where APEX learns its fake field, beside what another prompt does there.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import isfinite, isnan, nan
from typing import Any, NamedTuple, get_args

import torch
from rich import box
from rich.console import Group
from rich.table import Table
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition
from apexgen.flow import endpoint, interpolate, normal
from apexgen.shift import Place, Shift, nothing, scalar


class Numbers(NamedTuple):
    """a and b of Eq. 9, and where they are applied."""

    a: float
    b: float
    place: Place = "condition"


USUAL = ((-1.0, 0.0), (-0.5, 1.0), (0.5, 0.0), (0.5, 1.0), (1.0, 0.0))
TIMES = (0.1, 0.5, 0.9)
PROMPTS = 8  # that are read, at most
INVISIBLE, WEAK = 0.1, 0.5  # parts of what another prompt changes, below which a shift is called so
NORMALISED = 0.5  # where a scale changes the text by less than this part of |a - 1|, a norm has taken it out
EVEN = 0.05  # where less than this part of the change varies with the token, attention does not see it
OTHER, NONE = "another prompt", "no prompt"


def in_both_places(pairs: Sequence[tuple[float, float]]) -> list[Numbers]:
    """Each pair (a, b), on the encoders' texts, and then each after the network's projection of them."""
    return [Numbers(a, b, place) for place in get_args(Place) for a, b in pairs]


SHIFTS = in_both_places(USUAL)


@dataclass(frozen=True)
class Row:
    """What a change of the condition, c to c', does; means over the prompts, nan where there is no such thing."""

    name: str
    shift: Numbers | Shift | None  # None: another prompt, or none
    velocity: tuple[float, ...]  # |F(x_t, t, c') - F(x_t, t, c)| / |F(x_t, t, c)| at each time
    share: float  # of what another prompt changes
    pooled: float  # of the velocity, where the pooled vector alone is shifted
    text: float  # |e' - e| / |e|, e the tokens after the network's own norm and projection
    attention: float  # the same of e less its mean token: softmax over the text does not see what all keys have

    @property
    def verdict(self) -> str:
        """invisible, weak or visible, by the share."""
        return "invisible" if self.share < INVISIBLE else "weak" if self.share < WEAK else "visible"

    @property
    def advice(self) -> str:
        """What to make of the shift, in a few words."""
        if not isinstance(self.shift, Numbers):
            return ""
        a, b, place = self.shift
        if (a, b) == (1, 0):
            return "no shift: a control"
        normalised = place == "condition" and self.text < NORMALISED * abs(a - 1)
        if a > 0 and b == 0 and normalised and self.verdict != "visible":
            return "normalised away: make a negative"
        if self.attention < EVEN * self.text:
            return "not seen by attention: change a"
        return "use it" if self.verdict == "visible" else "take a further from 1"


def probe(backbone: Backbone, prompts: Sequence[str], shifts: Sequence[Numbers] = SHIFTS, seed: int = 0) -> list[Row]:
    """A row for each shift, one for another prompt and one for none, from the first few prompts, in float32.

    ValueError where there are not two different prompts.
    """
    distinct = list(dict.fromkeys(prompts))[:PROMPTS]
    if len(distinct) < 2:
        raise ValueError("--prompts: a shift is measured beside another prompt; write at least two different ones")
    conditions = [backbone.encode_text([prompt]) for prompt in distinct]
    return measure(backbone, conditions, backbone.encode_text([""]), shifts, TIMES, seed)


@torch.no_grad()
def measure(
    backbone: Backbone,
    conditions: Sequence[Condition],
    null: Condition,
    shifts: Sequence[Numbers | Shift],
    times: Sequence[float],
    seed: int = 0,
) -> list[Row]:
    """The rows of `probe` for two conditions or more of batch 1, the empty condition, and times in (0, 1)."""
    exact = copy(backbone)
    if backbone.weights == "float32":
        exact.precision = None  # half precision would show its rounding as a change
    generator = torch.Generator().manual_seed(seed)
    made = [(shift if isinstance(shift, Shift) else scalar(*shift)).to(backbone.device) for shift in shifts]
    changes = [
        _changes(exact, condition, made, [conditions[index - 1], null], times, generator)
        for index, condition in enumerate(conditions)
    ]
    means = torch.stack(changes).mean(0)
    scale = means[len(shifts), : len(times)].mean().clamp(min=1e-12)
    return [
        Row(
            name,
            shift,
            tuple(mean[: len(times)].tolist()),
            float(mean[: len(times)].mean() / scale),
            *mean[len(times) :].tolist(),
        )
        for name, shift, mean in zip([*map(spelt, shifts), OTHER, NONE], [*shifts, None, None], means, strict=True)
    ]


def _changes(
    net: Backbone,
    c: Condition,
    shifts: Sequence[Shift],
    others: Sequence[Condition],
    times: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """What each shift and other condition changes: the velocity at each time, then Row's pooled, text and attention.

    (len(shifts) + len(others), len(times) + 3). Of other conditions, the last three are nan.
    """
    t = torch.tensor(times, device=net.device).view(-1, 1, 1, 1)
    one, shape = torch.ones_like(t), (len(t), *net.latent_shape())
    w, z = (normal(shape, generator).to(net.device) for _ in range(2))
    c = c.to(net.device).expand(len(t))
    x_t = interpolate(endpoint(w, net(w, one, one, c), one), z, t)  # Eq. 11 and 1
    v, tokens = _respond(net, x_t, t, c)
    rows = []
    for told in [c.shift(shift) for shift in shifts] + [other.to(net.device).expand(len(t)) for other in others]:
        v_told, tokens_told = _respond(net, x_t, t, told)
        pooled = text = attention = torch.tensor(nan)
        if len(rows) < len(shifts):
            text, attention = _relative(tokens_told, tokens), _relative(_varying(tokens_told), _varying(tokens))
            if c.pooled is not None:
                shift = shifts[len(rows)]
                alone = c.shift(Shift(nothing(), shift.pooled, shift.place).to(net.device))
                pooled = _relative(_respond(net, x_t, t, alone)[0], v)
        each = [_relative(*pair) for pair in zip(v_told, v, strict=True)]
        rows.append(torch.stack([value.cpu() for value in (*each, pooled, text, attention)]))
    return torch.stack(rows)


def _respond(net: Backbone, x: Tensor, t: Tensor, c: Condition) -> tuple[Tensor, Tensor]:
    """The velocity, and the tokens (N, D) that attention is given of the text, those that count where it has a mask."""
    kept: list[Tensor] = []
    embedder = net.network.get_submodule(net.text_embedder)
    hook = embedder.register_forward_hook(lambda module, inputs, embedded: kept.append(embedded.flatten(0, -2)))
    try:
        v = net(x, t, t, c)
    finally:
        hook.remove()
    counts = c.mask.flatten().bool()
    return v, kept[0][counts] if len(kept[0]) == len(counts) else kept[0]  # Z-Image has left out the others


def _varying(tokens: Tensor) -> Tensor:
    return tokens - tokens.mean(0)


def _relative(changed: Tensor, original: Tensor) -> Tensor:
    return (changed - original).norm() / original.norm().clamp(min=1e-12)


def first_visible(rows: Sequence[Row]) -> Numbers | None:
    """The first shift that is visible; the sign alone, the default, comes before others. None where there is none."""
    found = (row.shift for row in rows if isinstance(row.shift, Numbers) and row.verdict == "visible")
    return next(found, None)


def lines(shift: Numbers) -> str:
    """The lines of a run file for a shift."""
    bias = f", objective.shift_bias = {shift.b}" if shift.b else ""
    place = f', objective.shift_place = "{shift.place}"' if shift.place != "condition" else ""
    return f"objective.shift_scale = {shift.a}{bias}{place}"


def spelt(shift: Numbers | Shift) -> str:
    """A shift in a few characters."""
    if isinstance(shift, Shift):
        return "this shift"
    return f"({shift.a:g}, {shift.b:g})" + (" after" if shift.place == "projection" else "")


def warning(backbone: Backbone, conditions: Sequence[Condition], null: Condition, shift: Numbers | Shift) -> str | None:
    """A line where a shift is invisible to a backbone, with the lines to write; at one time, so that it is cheap."""
    [row, *_] = measure(backbone, conditions, null, [shift], [0.5])
    if row.verdict != "invisible":
        return None
    better = first_visible(measure(backbone, conditions, null, SHIFTS, [0.5]))
    write = f"write {lines(better)}" if better else "see: apexgen probe"
    told = f"a = {shift.a:g}, b = {shift.b:g}" if isinstance(shift, Numbers) else "it"
    return (
        f"the shifted condition is invisible to this network: {told} changes the velocity "
        f"by {row.share:.1%} of what another prompt does; {write}"
    )


def parse_shift(text: str) -> tuple[float, float]:
    """ "a,b" as two finite numbers; ValueError for anything else."""
    try:
        a, b = map(float, text.split(","))
    except ValueError:
        a = b = nan
    if not isfinite(a) or not isfinite(b):
        raise ValueError(f"--shift {text}: write two numbers, such as --shift -1,0")
    return a, b


def summary(rows: Sequence[Row]) -> str:
    """Which shifts are invisible, and what to write."""
    lost = [row.name for row in rows if row.shift is not None and row.verdict == "invisible"]
    better = first_visible(rows)
    write = f"write {lines(better)}" if better else "none of these is visible: try another --shift"
    return (f"invisible: {', '.join(lost)}; " if lost else "") + write


def as_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON has them; None for what there is not, such as a pooled vector."""
    told = []
    for row in rows:
        numbers = {name: getattr(row, name) for name in ("share", "pooled", "text", "attention")}
        said = {"verdict": row.verdict, "advice": row.advice} if row.shift is not None else {}
        known = {name: None if isnan(value) else value for name, value in numbers.items()}
        told.append({"change": row.name, "velocity": list(row.velocity)} | known | said)
    return told


def tables(rows: Sequence[Row], times: Sequence[float] = TIMES) -> Group:
    """For a terminal: what each change of the condition does, and what to make of each shift."""
    numbers = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    numbers.add_column("change", no_wrap=True)
    for name in (*(f"t={t:g}" for t in times), "/ prompt", "pooled", "text", "attention"):
        numbers.add_column(name, justify="right", no_wrap=True)
    verdicts = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("(a, b)", "verdict", "advice"):
        verdicts.add_column(name, no_wrap=True)
    for row in rows:
        values = (*row.velocity, row.share, row.pooled, row.text, row.attention)
        numbers.add_row(row.name, *("-" if isnan(value) else f"{value:.3f}" for value in values))
        if row.shift is not None:
            verdicts.add_row(row.name, row.verdict, row.advice)
    return Group(numbers, verdicts)
