"""The language of post-training recipes: text in, plan out. Nothing heavy is imported here."""

__version__ = "0.1.0"
