"""The laws that operators and samplers obey, for your own ones too."""

from sfumato.testing._operators import check_operator

__all__ = ["check_operator"]
