"""Fields of SSD's solver: how detections are evaluated, and when a loss stops falling."""

from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.schema import SolverParameter
from reproduction.caffe.schema.field import boolean, integers, string
from reproduction.caffe.schema.scalar_types import INT32

SolverParameter.add_field("eval_type", string(41, "classification"), SSD, effect=False)
SolverParameter.add_field("ap_version", string(42, "Integral"), SSD, effect=False)
SolverParameter.add_field("show_per_class_result", boolean(44), SSD, effect=False)
SolverParameter.add_field("plateau_winsize", integers(43, INT32), SSD)
