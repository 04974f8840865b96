"""Errors that programs can catch as pycaffe's, or as the exception that a Python layer raised."""

import pytest

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.pycaffe.net.errors import CaffeError, original_error_types


class OddError(Exception):
    """One with a constructor of its own."""

    def __init__(self, number, *, word):
        super().__init__(number)
        self.word = word


@pytest.mark.parametrize(
    "cause",
    [KeyError("k"), OSError(2, "gone"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), StopIteration(),
     OddError(1, word="w"),
     ValueError("v"), NetError("n")],
    ids=lambda cause: type(cause).__name__,
)  # fmt: skip
def test_an_error_is_of_both_types_and_says_the_place(cause):
    with pytest.raises(type(cause)) as raised, original_error_types():
        raise NetError("it raised", layer="l", got=1) from cause
    assert str(raised.value) == "layer 'l': it raised; got 1."
    assert isinstance(raised.value, NetError)
    assert raised.value.__cause__ is cause
    assert (raised.value.layer, raised.value.got) == ("l", 1)


def test_other_errors_pass():
    error = NetError("alone")
    with pytest.raises(NetError) as raised, original_error_types():
        raise error
    assert raised.value is error
    with pytest.raises(KeyError), original_error_types():
        raise KeyError


def test_a_caffe_error_is_a_runtime_error_in_our_form():
    error = CaffeError("wrong", place="here", got=1, want=2)
    assert isinstance(error, RuntimeError)
    assert isinstance(error, ReproductionError)
    assert str(error) == "here: wrong; got 1, want 2."
