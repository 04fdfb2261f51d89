"""W124: rows are made and nothing reads them.

A filter that no training reads, since the training still names the unfiltered rows, is the dearest form of it: everything
runs, and nothing was verified.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, warning
from omrlang.references import references
from omrlang.schema import Filter, Mix, Rl, Sample, Sft, Source


def lint(graph: Graph) -> Iterator[Diagnostic]:
    read = {name for stage in graph.stages for name in references(stage.spec)}
    trains = any(isinstance(stage.spec, Sft | Rl) for stage in graph.stages)
    # Without a training the last rows are what the recipe is for; a file of sources alone is a library.
    for stage, spec in graph.of(Source, Mix, Sample, Filter) if trains else ():
        if spec.name not in read:
            yield warning(
                "W124", f"no stage reads the rows of {spec.kind} `{spec.name}`", stage.span
            )
