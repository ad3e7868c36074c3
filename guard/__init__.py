"""Guard: no tool call runs until it is authorized."""

__version__ = "0.1.0"
