"""The user's networks, as options of whatever measures by them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import typer

if TYPE_CHECKING:
    from sfumato.evaluation.choice import Networks
    from sfumato.evaluation.extractors import Resize

NETWORKS = "Your networks (tensors only: safetensors, or a state dict)"


@final
@dataclass(frozen=True)
class NetworkFiles:
    """Files of weights, and what belongs to them."""

    inception: Annotated[
        Path | None,
        typer.Option(
            help="pt_inception-2015-12-05-6726825d.pth: FID, KID, IS.", rich_help_panel=NETWORKS
        ),
    ] = None
    reference_statistics: Annotated[
        Path | None,
        typer.Option(
            help="An .npz with mu and sigma, in place of the references, for FID.",
            rich_help_panel=NETWORKS,
        ),
    ] = None
    lpips: Annotated[
        Path | None,
        typer.Option(help="torchvision's AlexNet or VGG-16.", rich_help_panel=NETWORKS),
    ] = None
    lpips_heads: Annotated[
        Path | None,
        typer.Option(help="The heads of LPIPS 0.1: alex.pth, vgg.pth.", rich_help_panel=NETWORKS),
    ] = None
    classifier: Annotated[
        Path | None,
        typer.Option(help="torchvision's ResNet-50, 101 or 152.", rich_help_panel=NETWORKS),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A list of name,class. Default: folders named by classes.",
            rich_help_panel=NETWORKS,
        ),
    ] = None

    def on(self, device: str, resize: Resize = "pytorch-fid") -> Networks:
        """Return the networks, none of which is read yet; SettingsError for half of LPIPS."""
        from sfumato.evaluation.choice import Networks

        return Networks(
            inception=self.inception,
            resize=resize,
            lpips=self._both_or_neither(),
            classifier=self.classifier,
            statistics=self.reference_statistics,
            device=device,
        )

    def _both_or_neither(self) -> tuple[Path, Path] | None:
        from sfumato.errors import SettingsError

        if self.lpips is not None and self.lpips_heads is not None:
            return self.lpips, self.lpips_heads
        if self.lpips is None and self.lpips_heads is None:
            return None
        raise SettingsError("one of --lpips and --lpips-heads", expected="both, or neither")
