"""Diagnostics to what people and programs read: text, JSON, SARIF, GitHub's workflow commands."""

from omrlang.render.text import concise, full, render

__all__ = ["concise", "full", "render"]
