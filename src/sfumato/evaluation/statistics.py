"""Mean and covariance of the features of a set, kept in a file: what FID needs of references.

The file is a NumPy archive with ``mu`` and ``sigma``, the names of those that are published beside
FID implementations, which are read too; ours say besides of what they are.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch

from sfumato.errors import ImageError, OutputError, SettingsError
from sfumato.metrics import FeatureVectors, moments
from sfumato.metrics.frechet import Covariance, Mean


@final
@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean (dimensions,) and covariance of ``n`` pictures' features (0: not told).

    ``network`` is the SHA-256 of its weights and ``protocol`` how it was fed, ``pictures`` a
    digest of the list of files; all are "" where a file does not tell.
    """

    mean: Mean
    covariance: Covariance
    n: int = 0
    network: str = ""
    protocol: str = ""
    pictures: str = ""

    @classmethod
    def of(
        cls, features: FeatureVectors, *, network: str = "", protocol: str = "", pictures: str = ""
    ) -> Statistics:
        """Return those of feature vectors; raises SettingsError for fewer than two, and NaN.

        >>> Statistics.of(torch.tensor([[0.0], [2.0]])).covariance.item()
        2.0
        """
        mean, covariance = moments(features)
        return cls(mean, covariance, len(features), network, protocol, pictures)

    def save(self, path: Path) -> None:
        """Write them, whole or not at all.

        Raises SettingsError for a name that does not end in .npz, OutputError.
        """
        from sfumato.io import atomic_path

        if path.suffix != ".npz":
            raise SettingsError(f"the statistics {path}", expected="a name that ends in .npz")
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            try:
                np.savez(
                    file,
                    mu=self.mean.numpy(),
                    sigma=self.covariance.numpy(),
                    n=np.int64(self.n),
                    network=np.str_(self.network),
                    protocol=np.str_(self.protocol),
                    pictures=np.str_(self.pictures),
                )
            except OSError as error:
                raise OutputError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read a file of ours, or any with ``mu`` and ``sigma``; nothing is unpickled.

        Raises ImageError for what is none.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                mean, covariance = (np.asarray(file[k], np.float64) for k in ("mu", "sigma"))
                texts = [str(file[k]) if k in file else "" for k in _TEXTS]
                n = int(file["n"]) if "n" in file else 0
        except FileNotFoundError as error:
            raise ImageError(f"there is no file {path}", do="check the name") from error
        except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise ImageError(
                f"{path} holds no statistics: {error}",
                expected="an .npz archive with arrays mu and sigma",
            ) from error
        if mean.ndim != 1 or covariance.shape != (mean.size, mean.size) or mean.size == 0:
            raise ImageError(
                f"{path} with mu of shape {mean.shape} and sigma of shape {covariance.shape}",
                expected="(n,) and (n, n)",
            )
        return cls(torch.from_numpy(mean), torch.from_numpy(covariance), n, *texts)

    def check(self, network: str, protocol: str, dimensions: int) -> None:
        """Refuse features of another network, or fed otherwise, as far as is known."""
        if self.mean.numel() != dimensions:
            raise SettingsError(
                f"reference statistics of {self.mean.numel()} dimensions",
                expected=f"{dimensions}, the network's",
            )
        if self.network and (self.network, self.protocol) != (network, protocol):
            raise SettingsError(
                f"reference statistics of {self.protocol}",
                expected=protocol,
                do="make them anew with --save-statistics",
            )


_TEXTS = ("network", "protocol", "pictures")


def listed(files: Iterable[Path]) -> str:
    """Return a digest of the names and contents of files."""
    from sfumato.io import digest

    told = "".join(f"{path.name} {digest(path)}\n" for path in files)
    return hashlib.sha256(told.encode()).hexdigest()
