"""The forms of the SR3 network: what one says about it, and the paper's four.

Reference: *Image Super-Resolution via Iterative Refinement*, arXiv 2104.07636, table A.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from sfumato.errors import SettingsError
from sfumato.nn._checks import check_dropout, check_whole, check_wholes

Entrance: TypeAlias = Literal["concatenation", "film"]


@final
@dataclass(frozen=True)
class SR3Config:
    """The form of an SR3 network, which decides the names and shapes of its weights.

    - ``channels``: one width a level, from the finest to the coarsest; each level has half the
      sides of the one before.
    - ``blocks``: the residual blocks of a level on the way down (one more on the way up).
    - ``channels_in``: those of ``x_t`` and of the condition together: 6 for SR3, 3 for a generator
      without a condition. ``channels_out``: those of ``x_t`` and of the answer.
    - ``attention``: at which factors of downsampling, besides the bottleneck, there is
      self-attention. The paper's 16 x 16 is the factor 8 for a network trained at 128 x 128.
    - ``embedding``: the width of the embedding of noise level and class.
    - ``dropout``: the share of features dropped before the last layer of a block, in training.
    - ``n_classes``: how many classes there are to choose from; None without classes.
    - ``entrance``: how the condition comes in. ``"concatenation"`` puts it beside ``x_t`` (the
      paper's way); ``"film"`` lets it scale and shift the features of every block.
    - ``head_width``: channels of one head of attention, where that divides the level's width.

    Raises SettingsError where a value is of another kind or out of range.

    >>> SR3Config(channels=(8, 16, 16), attention=(4,)).stride
    4
    """

    channels: tuple[int, ...]
    blocks: int = 3
    channels_in: int = 6
    channels_out: int = 3
    attention: tuple[int, ...] = ()
    embedding: int = 512
    dropout: float = 0.0
    n_classes: int | None = None
    entrance: Entrance = "concatenation"
    head_width: int = 64

    def __post_init__(self) -> None:
        check_wholes("channels", self.channels, 1, 10, 1 << 14)
        check_whole("blocks", self.blocks, 1, 16)
        check_whole("channels_out", self.channels_out, 1, 1024)
        check_whole("channels_in", self.channels_in, self.channels_out, 2048)
        check_wholes("attention", self.attention, 0, len(self.channels), self.stride)
        levels = [1 << level for level in range(len(self.channels))]
        if not set(self.attention) <= set(levels):
            raise SettingsError(
                f"attention at the factors {self.attention}", expected=f"some of {levels}"
            )
        check_whole("embedding", self.embedding, 1, 1 << 14)
        check_whole("head_width", self.head_width, 1, 1 << 14)
        if self.n_classes is not None:
            check_whole("n_classes", self.n_classes, 1, 1 << 20)
        check_dropout(self.dropout)
        if self.entrance not in ("concatenation", "film"):
            raise SettingsError(
                f"entrance {self.entrance!r}", expected='"concatenation" or "film"'
            )

    @property
    def stride(self) -> int:
        """The number that both sides of an input must be multiples of."""
        return 1 << (len(self.channels) - 1)

    @property
    def condition_channels(self) -> int:
        """The channels of the condition; 0 where there is none."""
        return self.channels_in - self.channels_out

    def widths(self) -> list[tuple[int, int]]:
        """List (factor of downsampling, width) of the levels, from the finest.

        >>> SR3Config(channels=(8, 16)).widths()
        [(1, 8), (2, 16)]
        """
        return [(1 << level, width) for level, width in enumerate(self.channels)]


def _paper(
    base: int,
    multipliers: tuple[int, ...],
    *,
    blocks: int = 3,
    attention: tuple[int, ...],
    dropout: float = 0.0,
) -> SR3Config:
    """Return a configuration of the paper's, which gives widths as multiples of the first one."""
    return SR3Config(
        channels=tuple(base * m for m in multipliers),
        blocks=blocks,
        attention=attention,
        embedding=4 * base,
        dropout=dropout,
    )


#: The paper's four by "small-large" sides, and three of this project's. The paper gives widths,
#: blocks, dropout and the number of parameters (550, 625, 625 and 150 millions). Attention at
#: 16 x 16 and an embedding of four times the first width, which it does not give, come within 3 %.
PRESETS: dict[str, SR3Config] = {
    "16-128": _paper(128, (1, 2, 4, 8, 8), attention=(8,), dropout=0.2),
    "64-256": _paper(128, (1, 2, 4, 4, 8, 8), attention=(16,)),
    "64-512": _paper(64, (1, 2, 4, 8, 8, 16, 16), attention=(32,)),
    "256-1024": _paper(16, (1, 2, 4, 8, 16, 32, 32, 32), blocks=2, attention=(64,)),
    #: Unconditional, 64 x 64: the first stage of a cascade.
    "generator-64": SR3Config((128, 256, 256, 512), 3, channels_in=3, attention=(4,), dropout=0.1),
    #: For one GPU of 8 to 24 GB.
    "gpu-small": SR3Config((64, 128, 256, 384), 2, attention=(8,), embedding=256),
    "tiny": SR3Config((8, 16), 1, attention=(2,), embedding=16, head_width=8),
}
