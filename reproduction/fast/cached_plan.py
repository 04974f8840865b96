"""The plan of one input size that a compiled net has in its cache, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.fast.cuda_graph import RecordedFunction
from reproduction.fast.engines import RuntimeGraph
from reproduction.fast.plan import ExecutionPlan


@dataclass
class CachedPlan:
    """A cached plan, and its graph if it has one.

    Attributes:
        plan: The plan.
        may_improve: Whether the second call creates a plan again, because an image of zeros did not pay off for a
            single call.
        calls: The number of calls of this size.
        graph: What is called instead: the plan as a recorded CUDA graph, or in the runtime of the fastest engine; None
            if torch computes it.
    """

    plan: ExecutionPlan
    may_improve: bool
    calls: int
    graph: RecordedFunction | RuntimeGraph | None = None
