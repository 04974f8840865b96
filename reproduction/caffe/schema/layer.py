"""A layer, and the rules that include it in a net or exclude it."""

import enum
from typing import Any, Self

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import data
from reproduction.caffe.schema import layer_params as params
from reproduction.caffe.schema.blobs import BlobProto
from reproduction.caffe.schema.field import booleans, choice, int32, messages, nested, single, singles, string, strings
from reproduction.caffe.schema.message import Message


class Phase(enum.IntEnum):
    """The phase that a net is built for: training or testing."""

    TRAIN = 0
    TEST = 1


class NetState(Message):
    """The phase, level and stages that a net is built for; the rules of its layers are compared with them."""

    phase = choice(1, Phase, Phase.TEST)
    level = int32(2)
    stage = strings(3)


class NetStateRule(Message):
    """An ``include`` or ``exclude`` rule of a layer.

    The rule is met if the net's state has its phase, a level from ``min_level`` to ``max_level``, every ``stage`` and
    no ``not_stage`` of the rule. A field that is not set allows any state.
    """

    phase = choice(1, Phase)
    min_level = int32(2)
    max_level = int32(3)
    stage = strings(4)
    not_stage = strings(5)


class DimCheckMode(enum.IntEnum):
    """What a shared parameter needs: the same shape (STRICT), or only the same number of values (PERMISSIVE)."""

    STRICT = 0
    PERMISSIVE = 1


class ParamSpec(Message):
    """The ``param`` of a layer: settings of one of its parameter blobs.

    ``name`` shares the blob with all parameters of this name. ``lr_mult`` and ``decay_mult`` multiply the solver's
    learning rate and weight decay.
    """

    name = string(1)
    share_mode = choice(2, DimCheckMode)
    lr_mult = single(3, 1.0)
    decay_mult = single(4, 1.0)


class LayerParameter(Message):
    """The message that describes a layer: its name, type, bottoms and tops, the settings of its type, and its weights.

    The settings of a type are in a field such as ``convolution_param``; the weights in ``blobs``.

    Attributes:
        dialect: the name of the dialect whose class computes the layer, if several have its type and one was chosen;
            otherwise an empty string. It is not written to files.
    """

    __slots__ = ("dialect",)

    @property
    def place(self) -> str:
        """The layer's name, type and line as text, with which error messages about the layer begin."""
        return NetError("", layer=self.name, type=self.type, line=self.line).place

    name = string(1)
    type = string(2)
    bottom = strings(3)
    top = strings(4)
    loss_weight = singles(5)
    param = messages(6, ParamSpec)
    blobs = messages(7, BlobProto)
    include = messages(8, NetStateRule)
    exclude = messages(9, NetStateRule)
    phase = choice(10, Phase)
    propagate_down = booleans(11)
    transform_param = nested(100, data.TransformationParameter)
    loss_param = nested(101, params.LossParameter)
    accuracy_param = nested(102, params.AccuracyParameter)
    argmax_param = nested(103, params.ArgMaxParameter)
    concat_param = nested(104, params.ConcatParameter)
    contrastive_loss_param = nested(105, params.ContrastiveLossParameter)
    convolution_param = nested(106, params.ConvolutionParameter)
    data_param = nested(107, data.DataParameter)
    dropout_param = nested(108, params.DropoutParameter)
    dummy_data_param = nested(109, data.DummyDataParameter)
    eltwise_param = nested(110, params.EltwiseParameter)
    exp_param = nested(111, params.ExpParameter)
    hdf5_data_param = nested(112, data.HDF5DataParameter)
    hdf5_output_param = nested(113, data.HDF5OutputParameter)
    hinge_loss_param = nested(114, params.HingeLossParameter)
    image_data_param = nested(115, data.ImageDataParameter)
    infogain_loss_param = nested(116, params.InfogainLossParameter)
    inner_product_param = nested(117, params.InnerProductParameter)
    lrn_param = nested(118, params.LRNParameter)
    memory_data_param = nested(119, data.MemoryDataParameter)
    mvn_param = nested(120, params.MVNParameter)
    pooling_param = nested(121, params.PoolingParameter)
    power_param = nested(122, params.PowerParameter)
    relu_param = nested(123, params.ReLUParameter)
    sigmoid_param = nested(124, params.SigmoidParameter)
    softmax_param = nested(125, params.SoftmaxParameter)
    slice_param = nested(126, params.SliceParameter)
    tanh_param = nested(127, params.TanHParameter)
    threshold_param = nested(128, params.ThresholdParameter)
    window_data_param = nested(129, data.WindowDataParameter)
    python_param = nested(130, data.PythonParameter)
    prelu_param = nested(131, params.PReLUParameter)
    spp_param = nested(132, params.SPPParameter)
    reshape_param = nested(133, params.ReshapeParameter)
    log_param = nested(134, params.LogParameter)
    flatten_param = nested(135, params.FlattenParameter)
    reduction_param = nested(136, params.ReductionParameter)
    embed_param = nested(137, params.EmbedParameter)
    tile_param = nested(138, params.TileParameter)
    batch_norm_param = nested(139, params.BatchNormParameter)
    elu_param = nested(140, params.ELUParameter)
    bias_param = nested(141, params.BiasParameter)
    scale_param = nested(142, params.ScaleParameter)
    input_param = nested(143, data.InputParameter)
    crop_param = nested(144, params.CropParameter)
    parameter_param = nested(145, data.ParameterParameter)
    recurrent_param = nested(146, params.RecurrentParameter)
    swish_param = nested(147, params.SwishParameter)
    clip_param = nested(148, params.ClipParameter)

    def __init__(self, **fields: Any):
        self.dialect = ""
        super().__init__(**fields)

    def copy(self) -> Self:
        """Return a deep copy; only the arrays of weights are shared with this message."""
        twin = super().copy()
        twin.dialect = self.dialect
        return twin


# Forks number the messages of their layer types from the number after the last one that BVLC Caffe had at the time.
LayerParameter.shared_numbers = frozenset(name for name in LayerParameter.fields if name.endswith("_param"))
