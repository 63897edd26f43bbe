"""What a network is told beside the noisy latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from apexgen.shift import Shift


@dataclass(frozen=True)
class Condition:
    """A batch of text conditions."""

    embeds: Tensor  # (B, L, D) token embeddings
    mask: Tensor  # (B, L) true or 1 where a token counts
    pooled: Tensor | None = None  # (B, P) one vector a text, where the network wants it
    after: Shift | None = None  # what is yet to be done to the text, once the network has projected it

    def __post_init__(self) -> None:
        assert self.embeds.ndim == 3, f"embeds must be (B, L, D), got {tuple(self.embeds.shape)}"
        assert self.mask.shape == self.embeds.shape[:2], (
            f"mask {tuple(self.mask.shape)} against embeds {tuple(self.embeds.shape)}"
        )
        assert self.pooled is None or (self.pooled.ndim == 2 and len(self.pooled) == len(self)), (
            f"pooled must be ({len(self)}, P), got {tuple(self.pooled.shape)}"
        )

    def __len__(self) -> int:
        return len(self.embeds)

    def widths(self) -> tuple[int, int | None]:
        """The channels of a token, and of the pooled vector where there is one."""
        return self.embeds.shape[-1], None if self.pooled is None else self.pooled.shape[-1]

    def shift(self, shift: Shift) -> "Condition":
        """The shifted condition c_fake = A c + b (Eq. 9); the mask is not part of its value and never changes.

        A shift whose place is after the projection goes along with the condition, for the network to apply.
        """
        if shift.place == "projection":
            return replace(self, after=shift)
        if self.pooled is None:
            return replace(self, embeds=shift.embeds(self.embeds))
        assert shift.pooled is not None, "the shift has no map of the pooled vector"
        return replace(self, embeds=shift.embeds(self.embeds), pooled=shift.pooled(self.pooled))

    def select(self, rows: slice | Tensor | Sequence[int]) -> "Condition":
        """The given rows: a slice, a tensor of indices, a boolean mask (B,) or a list of ints."""
        pooled = None if self.pooled is None else self.pooled[rows]
        return replace(self, embeds=self.embeds[rows], mask=self.mask[rows], pooled=pooled)

    def drop(self, rows: Tensor, null: "Condition") -> "Condition":
        """The rows where the boolean mask (B,) is true replaced by the null condition's.

        null has batch 1 or B; neither is yet to be shifted.
        """
        assert self.after is None and null.after is None, "shift what is whole"
        assert rows.dtype == torch.bool and rows.shape == (len(self),), (
            f"rows must be a boolean mask ({len(self)},), got {rows.dtype} {tuple(rows.shape)}"
        )
        length = max(self.embeds.shape[1], null.embeds.shape[1])
        null, real, pooled = null.expand(len(self)).pad(length), self.pad(length), None
        if self.pooled is not None:
            assert null.pooled is not None, "the null condition has no pooled vector"
            pooled = torch.where(rows[:, None], null.pooled, self.pooled)
        return Condition(
            torch.where(rows[:, None, None], null.embeds, real.embeds),
            torch.where(rows[:, None], null.mask, real.mask),
            pooled,
        )

    def to(self, target: torch.device | torch.dtype | str) -> "Condition":
        """The condition on another device, or in another precision (which leaves the mask)."""
        mask = self.mask if isinstance(target, torch.dtype) else self.mask.to(target)
        pooled = None if self.pooled is None else self.pooled.to(target)
        return replace(self, embeds=self.embeds.to(target), mask=mask, pooled=pooled)

    def expand(self, batch: int) -> "Condition":
        """A condition of batch 1 repeated to `batch` rows, without a copy; one of `batch` as is."""
        if len(self) == batch:
            return self
        assert len(self) == 1, f"cannot expand {len(self)} rows to {batch}"
        pooled = None if self.pooled is None else self.pooled.expand(batch, -1)
        return replace(self, embeds=self.embeds.expand(batch, -1, -1), mask=self.mask.expand(batch, -1), pooled=pooled)

    def pad(self, length: int) -> "Condition":
        """The condition with tokens that do not count added up to `length`; one of that length as is."""
        missing = length - self.embeds.shape[1]
        assert missing >= 0, f"cannot pad {self.embeds.shape[1]} tokens to {length}"
        if missing == 0:
            return self
        pad = nn.functional.pad
        return replace(self, embeds=pad(self.embeds, (0, 0, 0, missing)), mask=pad(self.mask, (0, missing)))

    @staticmethod
    def concatenate(conditions: Sequence["Condition"]) -> "Condition":
        """The conditions one after another along the batch, padded to the longest; they share D and P.

        None is yet to be shifted.
        """
        assert all(c.after is None for c in conditions), "shift what is whole"
        length = max(c.embeds.shape[1] for c in conditions)
        conditions = [c.pad(length) for c in conditions]
        pooled = [c.pooled for c in conditions if c.pooled is not None]
        assert len(pooled) in (0, len(conditions)), "some conditions are pooled and some are not"
        return Condition(
            torch.cat([c.embeds for c in conditions]),
            torch.cat([c.mask for c in conditions]),
            torch.cat(pooled) if pooled else None,
        )
