"""The plan of one input size that a compiled net has in its cache, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.fast.cuda_graph import RecordedFunction
from reproduction.fast.engines import RuntimeGraph
from reproduction.fast.plan import ExecutionPlan


@dataclass
class CachedPlan:
    """A cached plan, and its CUDA graph if it was recorded.

    Attributes:
        plan: The plan.
        may_improve: Whether the second call creates a plan again, because an image of zeros did not pay off for a
            single call.
        calls: The number of calls that used the plan.
        recorded: The CUDA graph, or None.
        has_engine: Whether the engine of this size was chosen.
        graph: The plan in that engine; None for torch.
    """

    plan: ExecutionPlan
    may_improve: bool = False
    calls: int = 0
    recorded: RecordedFunction | None = None
    has_engine: bool = False
    graph: RuntimeGraph | None = None
