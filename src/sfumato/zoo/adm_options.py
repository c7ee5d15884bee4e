"""What the tensors of guided-diffusion (ADM) do not say: heads, schedule; as JSON beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt, ValidationError

from sfumato.errors import ModelError
from sfumato.zoo.adm_layout import ADMForm

if TYPE_CHECKING:
    from torch import Tensor

_HEAD = 64
_HEADS = 4
_Count = Annotated[StrictInt, Field(ge=1, le=1 << 16)]


class ADMOptions(BaseModel):
    """How a checkpoint was trained, as far as its tensors do not tell; all may be left out.

    - ``num_heads``: of every attention, or ``num_head_channels``: of every head.
    - ``use_new_attention_order``: queries of all heads come first, then keys, then values.
    - ``noise_schedule``, ``diffusion_steps``; ``rescale_timesteps``: times go to 1000 in any case.
    - ``predict_xstart``: it returns the image, not the noise.
    - ``image_size``: the side of its images; ``classes``: the names of its classes.

    The names are those of the published flags.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_heads: _Count | None = None
    num_head_channels: _Count | None = None
    use_new_attention_order: bool | None = None
    noise_schedule: Literal["linear", "cosine"] | None = None
    diffusion_steps: Annotated[StrictInt, Field(ge=2, le=1 << 16)] = 1000
    rescale_timesteps: bool = False
    predict_xstart: bool = False
    image_size: _Count | None = None
    classes: tuple[str, ...] | None = None
    training: dict[str, JsonValue] = Field(default_factory=dict)

    def settled(self, form: ADMForm) -> ADMOptions:
        """Return the same with every choice made: as the published model of this form has it."""
        small = _published_64(form)
        own: dict[str, object] = {
            "use_new_attention_order": small and not form.is_classifier,
            "noise_schedule": "cosine" if small else "linear",
            "image_size": form.side,
        }
        if self.num_heads is None and self.num_head_channels is None:
            fits = all(c % _HEAD == 0 for c in form.attended)
            own |= {"num_head_channels": _HEAD} if fits else {"num_heads": _HEADS}
            if _published_128(form):
                own = own | {"num_heads": _HEADS, "num_head_channels": None}
        if form.n_classes is not None:
            own["classes"] = tuple(map(str, range(form.n_classes)))
        return self.model_copy(
            update={n: v for n, v in own.items() if getattr(self, n) is None},
        )

    def heads(self, channels: int) -> int:
        """Return the heads of an attention over ``channels``; ModelError where they do not fit."""
        n = self.num_heads or channels // (self.num_head_channels or channels)
        width = self.num_head_channels if self.num_heads is None else None
        if channels % n or (width and channels % width):
            said = f"{self.num_heads} heads" if width is None else f"heads of {width} channels"
            raise ModelError(
                f"{said} for an attention over {channels} channels",
                expected="a number that divides it",
                do="say num_heads or num_head_channels in the JSON beside the checkpoint",
            )
        return n

    def alpha_bar(self) -> Tensor:
        """Return ``ᾱ_t`` of the schedule: β from 0.0001 to 0.02 for 1000 steps, or the cosine."""
        from sfumato.diffusion.schedule import cosine_alpha_bar, linear_alpha_bar

        n = self.diffusion_steps
        if self.noise_schedule == "cosine":
            return cosine_alpha_bar(n)
        return linear_alpha_bar(n, 0.1 / n, min(20 / n, 0.999))

    @property
    def time_scale(self) -> float:
        """What the network's times are in indices."""
        return 1000 / self.diffusion_steps if self.rescale_timesteps else 1.0


def _published_64(form: ADMForm) -> bool:
    """Whether it is the published U-Net or classifier of 64 x 64: their schedule is the cosine."""
    if form.is_classifier:
        return (form.side, form.blocks, form.width) == (64, 4, 128)
    return (form.width, form.blocks, form.channels) == (192, 3, (192, 384, 576, 768))


def _published_128(form: ADMForm) -> bool:
    """Whether it is the published U-Net of 128 x 128, the one with four heads everywhere."""
    return form.channels == (256, 256, 512, 768, 1024) and not form.is_classifier


def read_options(path: Path) -> ADMOptions:
    """Read options from a JSON file; raises ModelError where they are none."""
    try:
        return parse_options(json.loads(path.read_text(encoding="utf-8-sig")), path)
    except FileNotFoundError as error:
        raise ModelError(f"there are no options {path}", do="check the name") from error
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is no JSON: {error}") from error


def parse_options(value: object, path: Path) -> ADMOptions:
    """Check options that were found in ``path``; ModelError says what is wrong with them."""
    try:
        return ADMOptions.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{path} says of a guided-diffusion model: {where}: {first['msg']}",
            expected=f"some of {', '.join(ADMOptions.model_fields)}",
        ) from error
