"""Checks of the numbers that the form of a network is made of."""

from __future__ import annotations

from sfumato.errors import SettingsError


def check_whole(name: str, value: object, smallest: int, largest: int) -> None:
    """Refuse what is no whole number from ``smallest`` to ``largest``, with a SettingsError."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not smallest <= value <= largest:  # type: ignore[operator]
        raise SettingsError(
            f"{name} = {value!r}", expected=f"a whole number from {smallest} to {largest}"
        )


def check_wholes(name: str, values: object, fewest: int, most: int, largest: int) -> None:
    """Refuse what is no tuple of ``fewest`` to ``most`` whole numbers from 1 to ``largest``."""
    if not isinstance(values, tuple) or not fewest <= len(values) <= most:
        raise SettingsError(
            f"{name} {values!r}", expected=f"a tuple of {fewest} to {most} whole numbers"
        )
    for value in values:
        check_whole(f"a number of {name}", value, 1, largest)


def check_dropout(dropout: object) -> None:
    """Refuse what is no share from 0 to below 1."""
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise SettingsError(f"dropout = {dropout!r}", expected="a share from 0 to below 1")
