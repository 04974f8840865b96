"""Fields of the solver of YOLO for Caffe: a learning rate for each stage of a training."""

from reproduction.caffe.dialects.yolo import YOLO
from reproduction.caffe.schema import SolverParameter
from reproduction.caffe.schema.field import integers, singles
from reproduction.caffe.schema.scalar_types import INT32

SolverParameter.add_field("stagelr", singles(50), YOLO)
SolverParameter.add_field("stageiter", integers(51, INT32), YOLO)
