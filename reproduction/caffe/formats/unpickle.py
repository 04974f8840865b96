"""A safe reader of pickles, which executes their instructions but never imports or calls anything.

Each import, call or object of a pickle becomes an inert placeholder (``Global``, ``Call``). So a malicious file can at
worst contain unexpected values. The readers of Python and torch are not used: both call constructors of NumPy, which
may allocate any amount of memory or read memory outside of an array.

Source: the Python standard library's documentation of ``pickle`` and ``pickletools``, protocols 0 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_SPARE_BYTES = 40 << 20  # that Python objects may take, in addition to the size of the file
_COST = 100  # estimated bytes of a container, or of an entry of the memo
_LONG_BYTES = 1024
_MAX_STEPS = 2 << 20  # about 2 seconds; a state dict has about 40 instructions for each tensor
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_KEYS = (str, bytes, int, float, type(None))


class Global:
    """The name of a class or function that a pickle asks to import."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Call:
    """A call that a pickle asks for, which is not executed.

    Attributes:
        function: the function to call; a ``Global`` in any ordinary pickle.
        args: its arguments, usually a tuple.
    """

    __slots__ = ("args", "function")

    def __init__(self, function: Any, args: Any):
        self.function, self.args = function, args


class Persistent:
    """A persistent ID, the reference to an object outside the pickle, such as a storage of torch."""

    __slots__ = ("key",)

    def __init__(self, key: Any):
        self.key = key


class DamagedError(Exception):
    """The error for bytes that are not a pickle, or for one that takes too much time or memory.

    The message is a phrase that describes the problem.
    """


def name_of(value: Any) -> str:
    """Return the name of a value's type for errors; for a placeholder, the name of its class or function."""
    if isinstance(value, Global):
        return value.name
    if isinstance(value, Call):
        return value.function.name if isinstance(value.function, Global) else "an object"
    return type(value).__name__


class Unpickler:
    """A stack machine that reads one pickle.

    Args:
        data: bytes that contain a pickle.
        start: the offset at which it begins.
        room: bytes that its objects may take in addition to 40 MiB, such as the size of the file.
    """

    def __init__(self, data: memoryview, start: int = 0, room: int = 0):
        self.data, self.at = data, start
        self.room = _SPARE_BYTES + room
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.persistent: list[Persistent] = []

    def load(self) -> Any:
        """Return the value of the pickle, and set ``at`` to the offset after it.

        Tuples, lists, dicts and scalars are Python objects; everything else is a placeholder.

        Raises:
            DamagedError: If the bytes are not a pickle, or it takes too many instructions or too much memory.
        """
        try:
            for _ in range(_MAX_STEPS):
                code = self.data[self.at]
                self.at += 1
                if code == _STOP:
                    return self.stack.pop()
                step = _STEPS.get(code)
                if step is None:
                    raise DamagedError(f"byte {self.at - 1} of the pickle is no instruction")
                step(self)
        except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            # Each of these means that the pickle reads past the end of its bytes, its stack or its memo.
            raise DamagedError(f"the pickle is damaged at byte {self.at}") from error
        raise DamagedError(f"the pickle has more than {_MAX_STEPS} instructions")

    def push(self, value: Any, cost: int = 0) -> None:
        """Push a value on the stack, and add its estimated memory."""
        self.spend(cost)
        self.stack.append(value)

    def spend(self, cost: int) -> None:
        """Add ``cost`` to the estimated memory; raise an error if it is too much for the file's size."""
        self.room -= cost
        if self.room < 0:
            raise DamagedError("the pickle makes more objects than its size allows")

    def take(self, size: int) -> memoryview:
        """Return the next ``size`` bytes, and advance."""
        if size > len(self.data) - self.at:
            raise DamagedError("the pickle is cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> Any:
        """Return the next number; ``form`` is a format of ``struct``."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Return the text up to the next newline, which is skipped."""
        block = bytes(self.data[self.at : self.at + 1024])
        size = block.index(b"\n")
        self.at += size + 1
        return block[:size].decode("utf-8", "replace")

    def marked(self) -> list[Any]:
        """Pop the values above the last mark, and return them."""
        mark = self.marks.pop()
        if mark > len(self.stack):
            raise DamagedError("the pickle's marks are out of order")
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def text(self, form: str) -> None:
        """Push a string; its length precedes it as a number of the format ``form``."""
        size = self.number(form)
        self.push(bytes(self.take(size)).decode("utf-8", "surrogatepass"), _COST + 4 * size)

    def octets(self, form: str) -> None:
        """Push bytes; their length precedes them as a number of the format ``form``."""
        size = self.number(form)
        self.push(bytes(self.take(size)), _COST + size)

    def whole(self, form: str) -> None:
        """Push an integer; its size in bytes precedes it as a number of the format ``form``."""
        size = self.number(form)
        if size > _LONG_BYTES:  # hashing a long integer takes time, on each use as a key
            raise DamagedError(f"the pickle has an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True), _COST + size)

    def tuple(self, values: list[Any]) -> None:
        """Push a tuple of ``values``."""
        self.push(tuple(values), _COST + 8 * len(values))

    def last(self, count: int) -> list[Any]:
        """Pop the last ``count`` values of the stack, and return them in order."""
        if count > len(self.stack):
            raise DamagedError("the pickle takes more values than it has")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def append(self, values: list[Any]) -> None:
        """Append values to the list on top of the stack; a placeholder ignores them."""
        target = self.stack[-1]
        if isinstance(target, list):
            self.spend(10 * len(values))
            target.extend(values)
        elif not isinstance(target, Call):
            raise DamagedError("the pickle appends to what is no list")

    def update(self, values: list[Any]) -> None:
        """Set alternating keys and values in the dict on top of the stack; a placeholder ignores them."""
        target = self.stack[-1]
        if len(values) % 2:
            raise DamagedError("the pickle sets a key without a value")
        if isinstance(target, dict):
            self.spend(_COST * len(values) // 2)
            for key, value in zip(values[::2], values[1::2], strict=True):
                # Hashing deeply nested tuples can overflow Python's stack, so any other key is replaced by an object.
                target[key if isinstance(key, _KEYS) else object()] = value
        elif not isinstance(target, Call):
            raise DamagedError("the pickle sets items of what is no dict")

    def call(self, function: Any, args: Any) -> None:
        """Push the result of a call: a dict for the dict types of ``collections``, else a placeholder."""
        if not isinstance(function, Global) or function.name not in _DICTS:
            self.push(Call(function, args), _COST)
            return
        self.push({}, _COST)
        for arg in args if isinstance(args, tuple) else ():
            if isinstance(arg, dict):
                self.spend(_COST * len(arg))
                self.stack[-1].update(arg)
            elif isinstance(arg, list) and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in arg):
                self.update([part for pair in arg for part in pair])

    def build(self) -> None:
        """Drop the state of an object, since placeholders have no attributes."""
        del self.stack[-1]
        if not self.stack:
            raise DamagedError("the pickle sets attributes of nothing")

    def find(self, module: Any, name: Any) -> None:
        """Push a placeholder for an import."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise DamagedError("the pickle imports what has no name")
        self.push(Global(f"{module}.{name}"), _COST + 4 * (len(module) + len(name)))

    def refer(self, key: Any) -> None:
        """Push a placeholder for an object outside the pickle, and record it in ``persistent``."""
        found = Persistent(key)
        self.persistent.append(found)
        self.push(found, _COST)

    def put(self, index: int) -> None:
        """Store the top of the stack in the memo under ``index``."""
        self.spend(_COST)
        self.memo[index] = self.stack[-1]


def _constant(value: Any) -> Callable[[Unpickler], None]:
    return lambda machine: machine.push(value, 8)


def _number(form: str) -> Callable[[Unpickler], None]:
    return lambda machine: machine.push(machine.number(form), 40)


def _pop(machine: Unpickler) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _mark(machine: Unpickler) -> None:
    machine.spend(40)
    machine.marks.append(len(machine.stack))


def _make_dict(machine: Unpickler) -> None:
    values = machine.marked()
    machine.push({}, _COST)
    machine.update(values)


_STOP = ord(".")
_STEPS: dict[int, Callable[[Unpickler], Any]] = {
    ord(code): step
    for code, step in {
        "(": _mark,
        "0": _pop,
        "1": lambda machine: machine.marked(),
        "2": lambda machine: machine.push(machine.stack[-1], 8),
        # Scalars.
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        "J": _number("<i"),
        "K": _number("<B"),
        "M": _number("<H"),
        "G": _number(">d"),
        "\x8a": lambda machine: machine.whole("<B"),
        "\x8b": lambda machine: machine.whole("<I"),
        "X": lambda machine: machine.text("<I"),
        "\x8c": lambda machine: machine.text("<B"),
        "\x8d": lambda machine: machine.text("<Q"),
        "U": lambda machine: machine.text("<B"),  # the strings of Python 2
        "T": lambda machine: machine.text("<I"),
        "C": lambda machine: machine.octets("<B"),
        "B": lambda machine: machine.octets("<I"),
        "\x8e": lambda machine: machine.octets("<Q"),
        "\x96": lambda machine: machine.octets("<Q"),
        # Containers.
        ")": lambda machine: machine.tuple([]),
        "\x85": lambda machine: machine.tuple(machine.last(1)),
        "\x86": lambda machine: machine.tuple(machine.last(2)),
        "\x87": lambda machine: machine.tuple(machine.last(3)),
        "t": lambda machine: machine.tuple(machine.marked()),
        "]": lambda machine: machine.push([], _COST),
        "l": lambda machine: machine.push(machine.marked(), _COST),
        "a": lambda machine: machine.append(machine.last(1)),
        "e": lambda machine: machine.append(machine.marked()),
        "}": lambda machine: machine.push({}, _COST),
        "d": _make_dict,
        "s": lambda machine: machine.update(machine.last(2)),
        "u": lambda machine: machine.update(machine.marked()),
        "\x8f": lambda machine: machine.push(Call(Global("builtins.set"), ()), 2 * _COST),
        "\x90": lambda machine: machine.append(machine.marked()),
        "\x91": lambda machine: machine.push(Call(Global("builtins.frozenset"), machine.marked()), 2 * _COST),
        # Objects.
        "c": lambda machine: machine.find(machine.line(), machine.line()),
        "\x93": lambda machine: machine.find(*machine.last(2)),
        "R": lambda machine: machine.call(*machine.last(2)),
        "\x81": lambda machine: machine.call(*machine.last(2)),
        "\x92": lambda machine: machine.call(*machine.last(3)[:2]),
        "b": lambda machine: machine.build(),
        "Q": lambda machine: machine.refer(machine.stack.pop()),
        # The memo.
        "q": lambda machine: machine.put(machine.number("<B")),
        "r": lambda machine: machine.put(machine.number("<I")),
        "\x94": lambda machine: machine.put(len(machine.memo)),
        "h": lambda machine: machine.push(machine.memo[machine.number("<B")], 8),
        "j": lambda machine: machine.push(machine.memo[machine.number("<I")], 8),
        # The protocol and the frames, which serve only to read from a stream.
        "\x80": lambda machine: machine.take(1),
        "\x95": lambda machine: machine.take(8),
    }.items()
}
