"""From files to arrays."""

from quickstudy.data.arrays import ClassData

__all__ = ["ClassData"]
