"""One axis of a chart: where values lie on it, and the round numbers that it shows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

TICKS = 4  # about so many
MANY_TIMES = 30  # what is so much larger than the rest would flatten it: the axis is logarithmic then


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def places(self, values: Iterable[float]) -> np.ndarray:
        """Shares of the axis, in [0, 1]; what lies outside is put at its end."""
        at = np.clip(np.asarray(list(values), dtype=float), self.low, self.high)
        low, high = self.low, self.high
        if self.log:
            at, low, high = np.log(at), math.log(low), math.log(high)
        return (at - low) / ((high - low) or 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers inside: the share of the axis, and the number as text."""
        shown = self._powers() if self.log else self._multiples()
        return list(zip(self.places(shown).tolist(), map(_text, shown), strict=True))

    def _multiples(self) -> list[float]:
        rough = ((self.high - self.low) or abs(self.high) or 1.0) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= 0.7 * rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _powers(self) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        times = (1, 2, 5) if self.high <= 100 * self.low else (1,)
        powers = range(low, high + 1, max(1, round((high - low) / (2 * TICKS))))
        every = [one * 10.0**power for power in powers for one in times]
        return [value for value in every if 0.999 * self.low <= value <= 1.001 * self.high]


def fitting(low: float, high: float, start: float) -> Axis:
    """The axis of values in [low, high]: logarithmic where they span much, linear from `start` otherwise."""
    if 0 < low and high >= MANY_TIMES * low:
        return Axis(low, high, log=True)
    return Axis(start, high if high > start else start + (abs(start) or 1.0))


def _text(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        number, _, power = f"{value:.3g}".partition("e")
        return f"{number}e{int(power)}" if power else number
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
