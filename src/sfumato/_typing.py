"""Names for the arrays that pass between the parts."""

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

#: Images in [-1, 1] (or noisy ones around them), always with a batch axis.
Images: TypeAlias = Float[Tensor, "batch channels height width"]

#: Measurements ``y = A x``: an image of its own size, or coefficients laid out as one.
Measurements: TypeAlias = Float[Tensor, "batch y_channels y_height y_width"]

#: The same images at a coarser scale.
CoarseImages: TypeAlias = Float[Tensor, "batch channels coarse_height coarse_width"]

#: (channels, height, width) of one image.
Shape: TypeAlias = tuple[int, int, int]
