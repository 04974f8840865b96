"""The messages of a solver and of its saved state."""

import enum

from reproduction.caffe.schema.blobs import BlobProto
from reproduction.caffe.schema.field import (
    boolean,
    choice,
    int32,
    int64,
    integers,
    messages,
    nested,
    single,
    string,
    strings,
)
from reproduction.caffe.schema.layer import NetState
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.net import NetParameter
from reproduction.caffe.schema.scalar_types import INT32


class SnapshotFormat(enum.IntEnum):
    """The file format in which a solver writes snapshots."""

    HDF5 = 0
    BINARYPROTO = 1


class SolverMode(enum.IntEnum):
    """The device that Caffe's solver would run on; this package ignores it."""

    CPU = 0
    GPU = 1


class SolverType(enum.IntEnum):
    """The update rules, as values of the old field ``solver_type``; solvers now name them in the string ``type``."""

    SGD = 0
    NESTEROV = 1
    ADAGRAD = 2
    RMSPROP = 3
    ADADELTA = 4
    ADAM = 5


class SolverParameter(Message):
    """The message that describes a solver: its nets, learning-rate policy, update rule and snapshots."""

    train_net = string(1)
    test_net = strings(2)
    test_iter = integers(3, INT32)
    test_interval = int32(4)
    base_lr = single(5)
    display = int32(6)
    max_iter = int32(7)
    lr_policy = string(8)
    gamma = single(9)
    power = single(10)
    momentum = single(11)
    weight_decay = single(12)
    stepsize = int32(13)
    snapshot = int32(14)
    snapshot_prefix = string(15)
    snapshot_diff = boolean(16)
    solver_mode = choice(17, SolverMode, SolverMode.GPU)
    device_id = int32(18)
    test_compute_loss = boolean(19)
    random_seed = int64(20, -1)
    train_net_param = nested(21, NetParameter)
    test_net_param = messages(22, NetParameter)
    debug_info = boolean(23)
    net = string(24)
    net_param = nested(25, NetParameter)
    train_state = nested(26, NetState)
    test_state = messages(27, NetState)
    snapshot_after_train = boolean(28, True)
    regularization_type = string(29, "L2")
    solver_type = choice(30, SolverType, SolverType.SGD)
    delta = single(31, 1e-08)
    test_initialization = boolean(32, True)
    average_loss = int32(33, 1)
    stepvalue = integers(34, INT32)
    clip_gradients = single(35, -1.0)
    iter_size = int32(36, 1)
    snapshot_format = choice(37, SnapshotFormat, SnapshotFormat.BINARYPROTO)
    rms_decay = single(38, 0.99)
    momentum2 = single(39, 0.999)
    type = string(40, "SGD")
    layer_wise_reduce = boolean(41, True)
    weights = strings(42)


class SolverState(Message):
    """The state of a solver in a snapshot, from which training can resume.

    Attributes:
        iter: the iteration after which it was saved.
        learned_net: the path of the file of the weights.
        history: the momentum (or other state of the update rule) of each parameter.
        current_step: the number of steps of the learning rate so far, for the policy ``multistep``.
    """

    iter = int32(1)
    learned_net = string(2)
    history = messages(3, BlobProto)
    current_step = int32(4)
