"""Messages: presence, values, lists, merging, copies, and errors that name the field."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.schema import (
    BlobProto,
    BlobShape,
    ClipParameter,
    ConvolutionParameter,
    EltwiseOp,
    EltwiseParameter,
    FillerParameter,
    LayerParameter,
    NetParameter,
    NetState,
    Phase,
    PoolingParameter,
    PoolMethod,
    ReductionOp,
    ReductionParameter,
    SolverParameter,
    V1LayerParameter,
)
from tests.helpers.protobuf_judge import MESSAGES, octets, to_judge
from tests.helpers.random_messages import messages

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ANY = st.sampled_from(MESSAGES).flatmap(messages)


def test_an_unset_field_reads_as_its_default_and_is_not_set():
    pooling = PoolingParameter()
    assert (pooling.pool, pooling.stride, pooling.pad) == (PoolMethod.MAX, 1, 0)
    assert not pooling.has("stride")
    assert list(pooling.set_fields()) == []
    assert ReductionParameter().operation is ReductionOp.SUM


def test_a_field_set_to_its_default_is_set():
    pooling = PoolingParameter(stride=1)
    assert pooling.has("stride")
    pooling.clear("stride")
    assert not pooling.has("stride")


def test_looking_at_a_sub_message_does_not_set_it_and_setting_inside_it_does():
    layer = LayerParameter()
    assert layer.convolution_param.weight_filler.type == "constant"
    assert not layer.has("convolution_param")
    layer.convolution_param.weight_filler.std = 0.1
    assert layer.has("convolution_param")
    assert [field.name for field, _ in layer.set_fields()] == ["convolution_param"]


def test_an_empty_sub_message_that_was_set_is_set():
    layer = LayerParameter(convolution_param=ConvolutionParameter())
    assert layer.has("convolution_param")
    assert layer.copy().has("convolution_param")
    assert layer != LayerParameter()


def test_looking_at_a_list_does_not_set_it_and_appending_to_it_does():
    layer = LayerParameter()
    assert layer.bottom == []
    assert not layer.has("bottom")
    layer.bottom.append("data")
    assert layer.has("bottom")
    layer.param.add(lr_mult=2).decay_mult = 0
    assert layer.param[0].decay_mult == 0


def test_two_messages_share_no_list():
    one, two = LayerParameter(), LayerParameter()
    one.bottom.append("data")
    assert two.bottom == []


def test_single_precision_is_rounded_and_overflows_to_infinity():
    assert FillerParameter(value=0.1).value == np.float32(0.1)
    assert FillerParameter(value=1e39).value == float("inf")
    assert FillerParameter(value=-(10**400)).value == float("-inf")
    assert BlobProto(data=[1e300, 0.1]).data.tolist() == [float("inf"), np.float32(0.1)]


def test_numbers_of_numpy_are_taken():
    layer = LayerParameter(loss_weight=np.float32([1, 2]), convolution_param={"num_output": np.int64(5)})
    assert layer.loss_weight == [1.0, 2.0]
    assert type(layer.convolution_param.num_output) is int


def test_an_array_is_a_view_of_what_was_given():
    values = np.arange(6, dtype="float32").reshape(2, 3)
    blob = BlobProto(data=values)
    assert blob.data.shape == (6,)
    assert np.shares_memory(blob.data, values)
    assert np.shares_memory(blob.copy().data, values)


def test_enums_are_taken_by_name_number_and_member():
    for value in ("PROD", 0, EltwiseOp.PROD):
        assert EltwiseParameter(operation=value).operation is EltwiseOp.PROD


def test_a_sub_message_is_taken_as_a_dictionary():
    net = NetParameter(state={"phase": "TRAIN"}, layer=[{"name": "x", "param": [{"lr_mult": 0}]}])
    assert net.state.phase is Phase.TRAIN
    assert net.layer[0].param[0].lr_mult == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LayerParameter(nmae="x"),
            "unknown field 'nmae' in LayerParameter. Did you mean 'name'?",
        ),
        (
            lambda: LayerParameter().has("botom"),
            "unknown field 'botom' in LayerParameter. Did you mean 'bottom'?",
        ),
        (
            lambda: NetParameter(name=5),
            "wrong value for NetParameter.name; got 5, want a string.",
        ),
        (
            lambda: NetParameter(force_backward=1),
            "wrong value for NetParameter.force_backward; got 1, want true or false.",
        ),
        (
            lambda: ConvolutionParameter(group=-1),
            "wrong value for ConvolutionParameter.group; got -1, want an integer from 0 to 4294967295.",
        ),
        (
            lambda: ConvolutionParameter(group=True),
            "wrong value for ConvolutionParameter.group; got True, want an integer from 0 to 4294967295.",
        ),
        (
            lambda: ConvolutionParameter(group=1.0),
            "wrong value for ConvolutionParameter.group; got 1.0, want an integer from 0 to 4294967295.",
        ),
        (
            lambda: NetState(level=2**31),
            "wrong value for NetState.level; got 2147483648, want an integer from -2147483648 to 2147483647.",
        ),
        (
            lambda: FillerParameter(value="1"),
            "wrong value for FillerParameter.value; got '1', want a number.",
        ),
        (
            lambda: PoolingParameter(pool="AVG"),
            "wrong value for PoolingParameter.pool; got 'AVG', want one of MAX, AVE, STOCHASTIC. Did you mean 'AVE'?",
        ),
        (
            lambda: PoolingParameter(pool=3),
            "wrong value for PoolingParameter.pool; got 3, want one of MAX, AVE, STOCHASTIC.",
        ),
        (
            lambda: V1LayerParameter(type="POOL"),
            "wrong value for V1LayerParameter.type; got 'POOL', want a name of V1LayerType. Did you mean 'POOLING'?",
        ),
        (
            lambda: LayerParameter(bottom="data"),
            "wrong value for LayerParameter.bottom; got 'data', want a list.",
        ),
        (
            lambda: LayerParameter(bottom=[b"data"]),
            "wrong value for LayerParameter.bottom; got b'data', want a string.",
        ),
        (
            lambda: LayerParameter(pooling_param=ConvolutionParameter()),
            "wrong value for LayerParameter.pooling_param; got ConvolutionParameter(), want a PoolingParameter.",
        ),
        (
            lambda: LayerParameter(pooling_param={"pad": -1}),
            "wrong value for PoolingParameter.pad; got -1, want an integer from 0 to 4294967295.",
        ),
        (
            lambda: BlobProto(data="abc"),
            "wrong value for BlobProto.data; got 'abc', want an array of numbers.",
        ),
        (
            lambda: NetParameter(layer=["x" * 500]),
            f"wrong value for NetParameter.layer; got '{'x' * 76}..., want a LayerParameter.",
        ),
    ],
)
def test_a_wrong_name_or_value_is_an_error_that_says_what_fits(make, message):
    with pytest.raises(ReproductionError) as info:
        make()
    assert str(info.value) == message


def test_a_misspelt_attribute_is_an_error():
    with pytest.raises(AttributeError, match="botom"):
        LayerParameter().botom = ["data"]  # type: ignore[attr-defined] # the mistake


def test_required_fields_are_named():
    assert ClipParameter.required == ("min", "max")
    assert LayerParameter.required == ()


def test_nan_equals_nan_in_every_field():
    nan = float("nan")
    assert FillerParameter(value=nan) == FillerParameter(value=nan)
    assert LayerParameter(loss_weight=[nan]) == LayerParameter(loss_weight=[nan])
    assert BlobProto(data=[nan], double_data=[nan]) == BlobProto(data=[nan], double_data=[nan])
    assert FillerParameter(value=nan) != FillerParameter(value=0)


def test_messages_that_say_other_things_are_not_equal():
    assert BlobShape(dim=[1, 2]) != BlobShape(dim=[1])
    assert BlobProto(data=[1]) != BlobProto(data=[1, 2])
    assert NetParameter() != SolverParameter()
    one, two = LayerParameter(), LayerParameter()
    two.unknown = b"\x08\x01"
    assert one != two
    assert not two.is_empty()


def test_the_text_of_a_message_shows_what_is_set_but_not_its_weights():
    layer = LayerParameter(name="x", blobs=[BlobProto(data=[1.0])], convolution_param={"pad": [1]})
    assert repr(layer) == (
        "LayerParameter(name='x', blobs=[BlobProto(data=...)], convolution_param=ConvolutionParameter(pad=[1]))"
    )


@FAST
@given(ANY)
def test_presence_is_protobufs(message):
    theirs = to_judge(message)
    for name, field in ((each.name, each) for each in message.by_number.values()):
        assert message.has(name) == (len(getattr(theirs, name)) > 0 if field.repeated else theirs.HasField(name))


@FAST
@given(ANY)
def test_copies_are_equal_and_apart(message):
    message.line, message.unknown = 7, b"\xf8\x07\x01"
    for twin in (message.copy(), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert twin == message
        assert (twin.line, twin.unknown) == (7, message.unknown)
        for name, field in ((each.name, each) for each in message.by_number.values()):
            if message.has(name) and (field.message or field.repeated) and not field.array:
                assert getattr(twin, name) is not getattr(message, name)


@FAST
@given(st.sampled_from(MESSAGES).flatmap(lambda message: st.tuples(messages(message), messages(message))))
def test_merging_is_protobufs(pair):
    one, two = pair
    theirs = to_judge(one)
    theirs.MergeFrom(to_judge(two))
    before = two.copy()
    one.merge(two)
    assert octets(to_judge(one)) == octets(theirs)
    assert two == before
