"""Degradation operators ``y = A x``: one operator a file, composition, and the text form."""

from sfumato.operators.base import GLOBAL, SVD, Axis, Locality, Operator, Window
from sfumato.operators.bicubic import Bicubic
from sfumato.operators.bound import Bound
from sfumato.operators.composition import Composition, compose, links
from sfumato.operators.compressed import BlockSensing, WalshHadamard
from sfumato.operators.convolution import Convolution
from sfumato.operators.deepinv import FromDeepinv
from sfumato.operators.grayscale import BT601, Grayscale
from sfumato.operators.hints import GrayscaleWithHints
from sfumato.operators.kernels import (
    anisotropic_gaussian_kernel,
    gaussian_kernel,
    motion_kernel,
    read_kernel,
    uniform_kernel,
)
from sfumato.operators.krylov import KrylovPinv
from sfumato.operators.part import Part
from sfumato.operators.pixelwise import (
    Identity,
    Mask,
    Nothing,
    box_mask,
    random_mask,
    scratch_mask,
)
from sfumato.operators.pool import AveragePool
from sfumato.operators.restricted import restricted
from sfumato.operators.text import (
    Degradation,
    Link,
    as_degradation,
    blur_word,
    parse,
    read_strokes,
)

__all__ = [
    "BT601",
    "GLOBAL",
    "SVD",
    "AveragePool",
    "Axis",
    "Bicubic",
    "BlockSensing",
    "Bound",
    "Composition",
    "Convolution",
    "Degradation",
    "FromDeepinv",
    "Grayscale",
    "GrayscaleWithHints",
    "Identity",
    "KrylovPinv",
    "Link",
    "Locality",
    "Mask",
    "Nothing",
    "Operator",
    "Part",
    "WalshHadamard",
    "Window",
    "anisotropic_gaussian_kernel",
    "as_degradation",
    "blur_word",
    "box_mask",
    "compose",
    "gaussian_kernel",
    "links",
    "motion_kernel",
    "parse",
    "random_mask",
    "read_kernel",
    "read_strokes",
    "restricted",
    "scratch_mask",
    "uniform_kernel",
]
