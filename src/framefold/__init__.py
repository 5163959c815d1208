"""framefold stores pictures and video as small fitted neural networks."""

from importlib.metadata import version

__version__ = version("framefold")
