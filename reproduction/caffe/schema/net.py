"""The message that describes a net."""

from reproduction.caffe.schema.blobs import BlobShape
from reproduction.caffe.schema.field import boolean, integers, messages, nested, string, strings
from reproduction.caffe.schema.layer import LayerParameter, NetState
from reproduction.caffe.schema.legacy import V1LayerParameter
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32


class NetParameter(Message):
    """The message that describes a net: its layers in order, and the state that it is built for.

    ``layer`` has the layers in the current form. The older form is ``layers``, and inputs that the fields ``input``,
    ``input_dim`` and ``input_shape`` declare; ``upgrade.upgrade_net`` converts both.
    """

    name = string(1)
    layers = messages(2, V1LayerParameter)
    input = strings(3)
    input_dim = integers(4, INT32)
    force_backward = boolean(5)
    state = nested(6, NetState)
    debug_info = boolean(7)
    input_shape = messages(8, BlobShape)
    layer = messages(100, LayerParameter)
