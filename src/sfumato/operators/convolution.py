"""Blur: convolution with a kernel, with borders that a lens could have made."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Literal, get_args

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError
from sfumato.linalg import dct, idct, least_squares, widened
from sfumato.operators.base import SVD, Axis, Locality, Operator, Window, reciprocal
from sfumato.operators.part import inside

#: How the picture goes on beyond its border: mirrored at the pixels' outer edge, or by its last
#: pixel.
Boundary = Literal["reflect", "replicate"]

#: Share of the largest singular value below which a component is not inverted.
#:
#: An 8-bit measurement carries rounding noise of standard deviation 1 / (255 √12) = 0.0011 of the
#: range. Inverted with a gain of 0.02 it becomes 0.057, about what details of natural pictures
#: measure in one component of the cosine transform: below this gain the prior knows more than the
#: measurement.
TRUNCATION = 0.02

#: Singular values below this share of the largest count as zero even where ``truncation`` is 0.
_RANK = 1e-9

#: Conjugate gradients: residual to reach for float64, and for inputs that are less exact anyway;
#: products to spend (a few hundred are needed with the usual truncation).
_TOLERANCE = 1e-9
_COARSE_TOLERANCE = 1e-6
_MAX_ITERATIONS = 10_000

#: Longest side for which the singular values of a separable blur are computed axis by axis (cubic
#: in the side).
_LONGEST_FACTORED_SIDE = 4096

#: Largest halo with which a blur is cut to windows: of a wider one too little is left inside.
_LARGEST_HALO = 32


class Convolution(Operator):
    """Convolution of every channel with one kernel.

    y[i, j] = Σ_{m,n} k[m, n] x[i + c_h − m, j + c_w − n],  the centre (c_h, c_w) = (height // 2,
    width // 2),  ``x`` continued beyond its border by ``boundary``. It is a true convolution (the
    kernel is turned, as by a point of light that becomes the kernel) and equals
    ``scipy.ndimage.convolve`` with the modes "reflect" and "nearest". Both borders stand for a
    scene that goes on beyond the frame; any kernel size goes with any picture down to 1 x 1.

    ``forward`` and ``adjoint`` are exact. The pseudo-inverse leaves out what the noise of 8 bits
    would spoil:

    - kernels symmetric in both axes, with "reflect": A = Dᵀ diag(g) D, ``D`` the cosine transform;
    - other separable kernels: A = A_h ⊗ A_w, with the singular value decomposition of each axis;
    - in these cases singular values below ``truncation`` of the largest are left out: A⁺ is the
      exact pseudo-inverse of the operator without them, and ``svd`` gives it;
    - all other kernels: A⁺ = (AᵀA + λ² I)⁻¹ Aᵀ by conjugate gradients in float64 with λ =
      ``damping``, that is ``truncation`` times the kernel's largest gain (Wiener's filter: noise
      grows at most by 1/2λ). Of a component with singular value s the part λ²/(s² + λ²) is left
      unenforced, so ``A⁺ A A⁺ = A⁺`` holds only where s ≫ λ; the other three laws of Penrose hold,
      the first within λ/2. With ``truncation=0`` it is the exact pseudo-inverse, as far as the
      iterations reach it (a ``NotConvergedWarning`` says when they do not).

    Args:
        in_shape: ``(channels, height, width)`` of the picture; the measurement has the same.
        kernel: real, finite, not all zero, ``(height, width)`` taps.
        boundary: "reflect" (half-sample symmetric: d c b a | a b c d | d c b a) or "replicate"
            (a a a | a b c d | d d d).
        truncation: see above, in [0, 1).
        name: text form, for display.

    Raises DegradationError for an unfit kernel, boundary or truncation.

    Reference: Hansen, Nagy and O'Leary, *Deblurring images: matrices, spectra, and filtering*,
        SIAM 2006.

    >>> A = Convolution((3, 40, 50), torch.ones(3, 3) / 9, name="uniform_blur:3")
    >>> A(torch.rand(1, 3, 40, 50)).shape, A.locality
    (torch.Size([1, 3, 40, 50]), Locality(stride=1, halo=1))
    """

    def __init__(
        self,
        in_shape: Shape,
        kernel: Tensor,
        boundary: Boundary = "reflect",
        *,
        truncation: float = TRUNCATION,
        name: str = "",
    ) -> None:
        super().__init__(in_shape, in_shape)
        if boundary not in get_args(Boundary):
            raise DegradationError(
                f"boundary {boundary!r}", expected=" or ".join(map(repr, get_args(Boundary)))
            )
        if not 0 <= truncation < 1:
            raise DegradationError(f"truncation {truncation}", expected="a share in [0, 1)")
        self.kernel = _checked(kernel)
        self.boundary: Boundary = boundary
        self.truncation = truncation
        self.name = name or "convolution:{}x{}".format(*self.kernel.shape)

    @override
    def forward(self, x: Images) -> Measurements:
        """Blur: ``y = k * x``, by the Fourier transform of the continued picture."""
        kh, kw = self.kernel.shape
        _, h, w = self.in_shape
        wide = _transformable(x)
        continued = _extend(_extend(wide, kw, self.boundary).mT, kh, self.boundary).mT
        blurred = self._filter(continued, conjugate=False)
        return blurred[..., kh - 1 : kh - 1 + h, kw - 1 : kw - 1 + w].to(x.dtype)

    @override
    def adjoint(self, y: Measurements) -> Images:
        """Return ``Aᵀ y``: correlate with the kernel, fold the outside back onto its pixels."""
        kh, kw = self.kernel.shape
        _, h, w = self.in_shape
        framed = pad(_transformable(y), (kw - 1, 0, kh - 1, 0))
        spread = self._filter(framed, conjugate=True)[..., : h + kh - 1, : w + kw - 1]
        folded = _fold(_fold(spread, kw, self.boundary).mT, kh, self.boundary).mT
        return folded.to(y.dtype)

    @override
    def pinv(self, y: Measurements) -> Images:
        """Deblur: return ``A⁺ y``, truncated or damped as the class says."""
        svd = self.svd()
        if svd is not None:
            return svd.v(reciprocal(svd.s).to(y.dtype).to(y.device) * svd.u_t(y))
        return least_squares(
            self.forward,
            self.adjoint,
            widened(y),
            damping=self.damping,
            tolerance=_TOLERANCE if y.dtype == torch.float64 else _COARSE_TOLERANCE,
            max_iterations=_MAX_ITERATIONS,
            precondition=self._precondition
            if self.damping and self.boundary == "reflect"
            else None,
        ).to(y.dtype)

    @property
    @override
    def damping(self) -> float:
        """λ of the iterative pseudo-inverse; 0 where the pseudo-inverse is in closed form."""
        return 0.0 if self._decomposition else self.truncation * self._largest_gain

    @property
    @override
    def locality(self) -> Locality:
        """Every value looks as far as the kernel's longer half reaches."""
        return Locality(stride=1, halo=max(n // 2 for n in self.kernel.shape))

    @override
    def crop(self, window: Window) -> Convolution:
        """Return the blur of the window alone: another one within ``halo`` of the cut edges."""
        shape = (self.in_shape[0], window.height, window.width)
        return Convolution(
            shape, self.kernel, self.boundary, truncation=self.truncation, name=self.name
        )

    @override
    def measured(self, window: Window) -> Window:
        """Return the window itself: the blurred picture lies on the sharp one."""
        return window

    @override
    def inside(self, window: Window) -> tuple[Operator, Window]:
        """Return the values in ``window`` that see nothing beyond its inner sides.

        Their pseudo-inverse is truncated for separable kernels, and damped for all others. Raises
        DegradationError for a halo above 32 pixels.
        """
        if self.locality.halo > _LARGEST_HALO:
            raise DegradationError(
                f"{self}, which looks {self.locality.halo} pixels far, in a window",
                expected=f"at most {_LARGEST_HALO} pixels",
                do="restore the image as a whole, or jointly",
            )
        rows, cols = map(_margins, self.kernel.shape)
        return inside(self, window, (rows, cols), damping=self.truncation * self._largest_gain)

    @property
    @override
    def axes(self) -> tuple[Axis, Axis] | None:
        """A matrix for each axis where the kernel is of rank 1, and no side very long."""
        return self._axes

    @cached_property
    def _axes(self) -> tuple[Axis, Axis] | None:
        factors, (_, h, w) = _separated(self.kernel), self.in_shape
        if factors is None or max(h, w) > _LONGEST_FACTORED_SIDE:
            return None
        column, row = (tuple(f.tolist()) for f in factors)
        return (
            Axis(_axis_matrix, (column, h, self.boundary)),
            Axis(_axis_matrix, (row, w, self.boundary)),
        )

    @property
    @override
    def amplifies(self) -> bool:
        """Blurs lose details: some gain is (nearly) zero."""
        return True

    @override
    def svd(self) -> SVD | None:
        """Return the decomposition where it is in closed form; truncated values are zeros."""
        return self._decomposition

    @override
    def __str__(self) -> str:
        return self.name

    @cached_property
    def _decomposition(self) -> SVD | None:
        _, h, w = self.in_shape
        odd = _with_odd_sides(self.kernel)
        if self.boundary == "reflect" and _is_symmetric(odd):
            return _cosine_svd(_cosine_gain(odd, h, w), self._floor, self.in_shape[0])
        if self.axes is None:
            return None
        rows, cols = map(_axis_svd, self.axes)
        return _separable_svd(rows, cols, self._floor, self.in_shape[0])

    @property
    def _floor(self) -> float:
        return max(self.truncation, _RANK)

    @cached_property
    def _largest_gain(self) -> float:
        """Largest gain of the kernel on an endless plane, on a grid of frequencies."""
        size = [4 * n for n in self.kernel.shape]
        return float(torch.fft.rfft2(self.kernel, s=size).abs().max())

    def _filter(self, x: Tensor, *, conjugate: bool) -> Tensor:
        """Multiply the spectrum of ``x``, framed with zeros to a fast size, with the kernel's."""
        size = [next_fast_len(n, real=True) for n in x.shape[-2:]]
        gain = torch.fft.rfft2(self.kernel.to(x.dtype).to(x.device), s=size)
        spectrum = torch.fft.rfft2(x, s=size) * (gain.conj() if conjugate else gain)
        filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
        return filtered

    @cached_property
    def _mean_power(self) -> Tensor:
        """Mean squared gain of the four waves that make a cosine: diagonal of  D AᵀA Dᵀ."""
        _, h, w = self.in_shape
        k = self.kernel
        powers = [
            (down @ k @ right.T).square()
            for down in _waves(h, k.shape[0])
            for right in _waves(w, k.shape[1])
        ]
        return torch.stack(powers).sum(0)

    def _precondition(self, r: Tensor) -> Tensor:
        """Divide by the diagonal of ``AᵀA + λ²`` in the cosine basis: half the iterations."""
        return idct(dct(r) / (self._mean_power.to(r.dtype).to(r.device) + self.damping**2))


def _checked(kernel: Tensor) -> Tensor:
    """Return the kernel in float64 on the CPU, having refused what is none."""
    k = torch.as_tensor(kernel)
    do = "give a matrix of real numbers"
    if k.ndim != 2 or k.numel() == 0:
        raise DegradationError(
            f"a kernel of shape {tuple(k.shape)}", expected="(height, width)", do=do
        )
    if k.is_complex():
        raise DegradationError(f"a kernel of dtype {k.dtype}", expected="real taps", do=do)
    k = k.detach().to("cpu").to(torch.float64)
    if not bool(torch.isfinite(k).all()) or not bool(k.any()):
        raise DegradationError(
            "a kernel with NaN or infinite taps, or with zeros only", expected="finite taps", do=do
        )
    return k


def _transformable(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _margins(taps: int) -> tuple[int, int]:
    """Pixels that an axis of the kernel looks before the first and beyond the last one."""
    return taps - 1 - taps // 2, taps // 2


def _extend(x: Tensor, taps: int, boundary: Boundary) -> Tensor:
    """Continue the last axis as far as a kernel axis of ``taps`` taps looks."""
    n = x.shape[-1]
    before, after = _margins(taps)
    place = torch.arange(-before, n + after, device=x.device)
    if boundary == "replicate":
        return x[..., place.clamp(0, n - 1)]
    phase = place.remainder(2 * n)
    return x[..., torch.minimum(phase, 2 * n - 1 - phase)]


def _fold(y: Tensor, taps: int, boundary: Boundary) -> Tensor:
    """Transpose of ``_extend``: add every value to the pixel it came from, in a fixed order."""
    before, after = _margins(taps)
    n = y.shape[-1] - before - after
    if boundary == "replicate":
        x = y[..., before : before + n].clone()
        x[..., 0] += y[..., :before].sum(-1)
        x[..., -1] += y[..., before + n :].sum(-1)
        return x
    # Whole copies of the picture, every other one mirrored; the original is copy number ``left``.
    left, right = -(-before // n), -(-after // n)
    copies = pad(y, (left * n - before, right * n - after))
    copies = copies.unflatten(-1, (left + 1 + right, n))
    same, mirrored = copies[..., left % 2 :: 2, :], copies[..., 1 - left % 2 :: 2, :]
    folded: Tensor = same.sum(-2) + mirrored.sum(-2).flip(-1)
    return folded


def _with_odd_sides(k: Tensor) -> Tensor:
    """Append a zero to even sides, which puts the centre into the middle."""
    return pad(k, (0, 1 - k.shape[1] % 2, 0, 1 - k.shape[0] % 2))


def _is_symmetric(k: Tensor) -> bool:
    tolerance = 1e-14 * float(k.abs().max())
    return all(torch.allclose(k, k.flip(axis), rtol=0, atol=tolerance) for axis in (0, 1))


def _separated(k: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return column and row with  k = column rowᵀ,  or None where ``k`` is not of rank 1."""
    U, s, Vh = torch.linalg.svd(k, full_matrices=False)
    if len(s) > 1 and s[1] > 1e-13 * s[0]:
        return None
    return U[:, 0] * s[0], Vh[0]


def _waves(n: int, taps: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin of  π u (m − c) / n:  a row for each of ``n`` frequencies."""
    place = torch.arange(taps, dtype=torch.float64) - taps // 2
    phase = torch.pi / n * torch.arange(n, dtype=torch.float64)[:, None] * place
    return torch.cos(phase), torch.sin(phase)


def _cosine_gain(k: Tensor, height: int, width: int) -> Tensor:
    """Eigenvalues  g(u, v) = Σ k[m, n] cos(π u (m − c_h)/H) cos(π v (n − c_w)/W)."""
    return _waves(height, k.shape[0])[0] @ k @ _waves(width, k.shape[1])[0].T


def _kept(s: Tensor, floor: float, channels: int) -> Tensor:
    """Zero the values below ``floor`` times the largest, and repeat them for every channel."""
    return torch.where(s >= floor * s.max(), s, 0.0).expand(channels, *s.shape)


def _cosine_svd(gain: Tensor, floor: float, channels: int) -> SVD:
    """``V`` is the cosine transform; a negative gain gives its sign to ``U``."""
    return SVD(
        s=_kept(gain.abs(), floor, channels),
        v_t=dct,
        v=idct,
        u_t=lambda y: gain.sign().to(y.dtype).to(y.device) * dct(y),
    )


def _axis_matrix(taps: tuple[float, ...], n: int, boundary: Boundary) -> Tensor:
    """Return the convolution of ``n`` pixels in a line as a dense matrix."""
    k = len(taps)
    continued = _extend(torch.eye(n, dtype=torch.float64), k, boundary)
    A = sum(tap * continued[:, k - 1 - m : k - 1 - m + n].T for m, tap in enumerate(taps))
    return torch.as_tensor(A)


@lru_cache(maxsize=8)
def _axis_svd(axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    U, s, Vh = torch.linalg.svd(axis.matrix())
    return U, s, Vh.T.contiguous()


def _separable_svd(
    rows: tuple[Tensor, Tensor, Tensor],
    cols: tuple[Tensor, Tensor, Tensor],
    floor: float,
    channels: int,
) -> SVD:
    """Combine the axes:  (U_h s_h V_hᵀ) ⊗ (U_w s_w V_wᵀ)."""
    (U_h, s_h, V_h), (U_w, s_w, V_w) = rows, cols

    def both(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
        return left.to(x.dtype).to(x.device) @ x @ right.to(x.dtype).to(x.device)

    return SVD(
        s=_kept(s_h[:, None] * s_w, floor, channels),
        v_t=lambda x: both(V_h.T, x, V_w),
        v=lambda c: both(V_h, c, V_w.T),
        u_t=lambda y: both(U_h.T, y, U_w),
    )
