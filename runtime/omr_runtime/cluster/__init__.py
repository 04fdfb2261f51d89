"""The place of a stage to the Ray cluster that its sampling and verification go to, if it names one."""

from __future__ import annotations

from omr_runtime.work import Work
from omrlang.schema import Eval, Filter, Sample
from omrlang.types import Hardware
from omrlang.types.models import Ray


def place_of(work: Work) -> tuple[Hardware, Ray] | None:
    """The hardware of a stage whose work goes to a cluster, and the cluster; None where it is done on this machine."""
    spec = work.stage.spec
    if not isinstance(spec, Sample | Filter | Eval) or spec.hardware is None:
        return None
    return None if spec.hardware.cluster is None else (spec.hardware, spec.hardware.cluster)
