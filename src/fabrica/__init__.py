"""fabrica: multimodal medical AI on premises."""

__version__ = "0.1.0"
