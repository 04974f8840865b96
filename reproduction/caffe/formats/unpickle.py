"""A safe reader of pickles, which follows their instructions but never imports or calls anything.

The instructions are parsed by ``pickletools`` of the standard library. Each import, call or object of a pickle becomes
an inert placeholder (``Global``, ``Call``). So a malicious file can at worst contain unexpected values. The readers of
Python and torch are not used: both call constructors of NumPy, which may allocate any amount of memory or read memory
outside of an array.

Source: the Python standard library's documentation of ``pickletools``, protocols 2 to 5.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any, cast

_SPARE_BYTES = 40 << 20  # that Python objects may take, in addition to the size of the file
_COST = 100  # estimated bytes of a value, or of an entry of the memo
_LONG_BYTES = 1024
_MAX_STEPS = 2 << 20  # about 2 seconds; a state dict has about 40 instructions for each tensor
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_KEYS = (str, bytes, int, float, type(None))


class Global:
    """A placeholder for a class or function that a pickle asks to import; ``name`` is its name, ``MODULE.NAME``."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Call:
    """A placeholder for the result of a call that a pickle asks for. The call is not executed.

    Attributes:
        function: the function to call; a ``Global`` in any ordinary pickle.
        args: its arguments, usually a tuple.
    """

    __slots__ = ("args", "function")

    def __init__(self, function: Any, args: Any):
        self.function, self.args = function, args


class Persistent:
    """A placeholder for an object that is stored outside the pickle, such as a storage of torch.

    Attributes:
        key: the persistent ID, by which the pickle refers to the object; a tuple in torch's files.
    """

    __slots__ = ("key",)

    def __init__(self, key: Any):
        self.key = key


class PickleError(Exception):
    """The error for bytes that are not a pickle, or for one that takes too much time or memory.

    Its message is a phrase, to which the caller adds the name of the file.
    """


def name_of(value: Any) -> str:
    """Return the name of a value's type, for errors.

    For a placeholder it is the name of its class or function, such as ``torch._utils._rebuild_tensor_v2``.
    """
    if isinstance(value, Global):
        return value.name
    if isinstance(value, Call):
        return value.function.name if isinstance(value.function, Global) else "an object"
    return type(value).__name__


class _Stream:
    """A file-like object on memory, from which ``pickletools`` reads; a line has at most 1,024 bytes."""

    def __init__(self, data: memoryview, at: int):
        self.data, self.at = data, at

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or those that are left."""
        block = bytes(self.data[self.at : self.at + size])
        self.at += len(block)
        return block

    def readline(self) -> bytes:
        """Return the bytes up to the next newline, included; none if there is no newline."""
        return self.read(bytes(self.data[self.at : self.at + 1024]).find(b"\n") + 1)


class Unpickler:
    """A stack machine that reads one pickle.

    Args:
        data: bytes that contain a pickle.
        start: the offset at which it begins.
        room: bytes that its objects may take in addition to 40 MiB, such as the size of the file.

    Attributes:
        at: the offset of the pickle in ``data``; after ``load``, the offset of the byte after it.
        persistent: the ``Persistent`` placeholders that ``load`` found, in order.
        stack: the values that the instructions work on; the last one is the top.
        marks: positions in the stack at which an instruction set a mark.
        memo: the values that an instruction stored, by index.
    """

    def __init__(self, data: memoryview, start: int = 0, room: int = 0):
        self.data, self.at = data, start
        self.room = _SPARE_BYTES + room
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.persistent: list[Persistent] = []

    def load(self) -> Any:
        """Read the pickle and return its value. Then ``at`` is the offset of the byte after it.

        Tuples, lists, dicts and scalars are Python objects; everything else is a placeholder, such as ``Call``.

        Raises:
            PickleError: If the bytes are not a pickle, or it takes too many instructions or too much memory.
        """
        stream = _Stream(self.data, self.at)
        try:
            for _ in range(_MAX_STEPS):
                start = stream.at
                opcode = _OPCODES[self.data[start]]
                step = None if opcode.name in _SCALARS else _STEPS[opcode.name]
                stream.at += 1
                argument: Any = None
                if opcode.name == "GLOBAL":  # pickletools would warn of escape sequences in its lines
                    argument = [stream.readline().decode("utf-8", "replace").rstrip("\n") for _ in range(2)]
                elif opcode.arg:
                    argument = opcode.arg.reader(cast(IO[bytes], stream))
                size = stream.at - start
                if opcode.name == "STOP":
                    self.at = stream.at
                    return self.stack.pop()
                if step is not None:
                    step(self, argument)
                elif isinstance(argument, int) and size > _LONG_BYTES:  # hashing it takes time, on each use as a key
                    raise PickleError(f"the pickle has an integer of {size} bytes")
                else:
                    self.push(argument, _COST + 4 * size)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            # Each of these means an unknown instruction, or one that reads past the end of the bytes, stack or memo.
            raise PickleError(f"the pickle is damaged at byte {stream.at}") from error
        raise PickleError(f"the pickle has more than {_MAX_STEPS} instructions")

    def push(self, value: Any, cost: int = 0) -> None:
        """Push a value on the stack.

        Args:
            value: the value.
            cost: the estimated bytes of memory that it takes.
        """
        self.spend(cost)
        self.stack.append(value)

    def spend(self, cost: int) -> None:
        """Subtract estimated bytes of memory from what the objects of this pickle may still take.

        Raises:
            PickleError: If less than ``cost`` bytes are left.
        """
        self.room -= cost
        if self.room < 0:
            raise PickleError("the pickle creates more objects than its size allows")

    def pop_marked(self) -> list[Any]:
        """Pop the last mark and the values above it from the stack, and return these values."""
        mark = self.marks.pop()
        if mark > len(self.stack):
            raise PickleError("the pickle's marks are out of order")
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def push_tuple(self, values: list[Any]) -> None:
        """Push the tuple of these values on the stack."""
        self.push(tuple(values), _COST + 8 * len(values))

    def pop_last(self, count: int) -> list[Any]:
        """Pop the last ``count`` values of the stack, and return them in order."""
        if count > len(self.stack):
            raise PickleError("the pickle takes more values than it has")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def append(self, values: list[Any]) -> None:
        """Append values to the list on top of the stack; a ``Call`` on top, such as a set, ignores them."""
        target = self.stack[-1]
        if isinstance(target, list):
            self.spend(10 * len(values))
            target.extend(values)
        elif not isinstance(target, Call):
            raise PickleError("the pickle appends to something other than a list")

    def set_items(self, values: list[Any]) -> None:
        """Set items of the dict on top of the stack; a ``Call`` on top ignores them.

        Args:
            values: alternating keys and values.
        """
        target = self.stack[-1]
        if len(values) % 2:
            raise PickleError("the pickle sets a key without a value")
        if isinstance(target, dict):
            self.spend(_COST * len(values) // 2)
            for key, value in zip(values[::2], values[1::2], strict=True):
                # Hashing deeply nested tuples can overflow Python's stack, so any other key is replaced by an object.
                target[key if isinstance(key, _KEYS) else object()] = value
        elif not isinstance(target, Call):
            raise PickleError("the pickle sets items of something other than a dict")

    def push_call(self, function: Any, args: Any) -> None:
        """Push the result of a call: a dict for the dict types of ``collections``, else a ``Call``.

        Args:
            function: what is called, normally a ``Global``.
            args: the arguments, normally a tuple.
        """
        if not isinstance(function, Global) or function.name not in _DICTS:
            self.push(Call(function, args), _COST)
            return
        self.push({}, _COST)
        for arg in args if isinstance(args, tuple) else ():
            if isinstance(arg, dict):
                self.spend(_COST * len(arg))
                self.stack[-1].update(arg)
            elif isinstance(arg, list) and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in arg):
                self.set_items([part for pair in arg for part in pair])

    def drop_state(self) -> None:
        """Pop the state that the pickle would set on an object (its attributes), and ignore it."""
        del self.stack[-1]
        if not self.stack:
            raise PickleError("the pickle sets attributes of nothing")

    def push_global(self, module: Any, name: Any) -> None:
        """Push a ``Global``, in place of importing ``name`` from ``module``."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError("the pickle imports something without a name")
        self.push(Global(f"{module}.{name}"), _COST + 4 * (len(module) + len(name)))

    def push_persistent(self, key: Any) -> None:
        """Push a ``Persistent`` for an object outside the pickle, and add it to the list ``persistent``.

        Args:
            key: the persistent ID, by which the pickle refers to the object.
        """
        found = Persistent(key)
        self.persistent.append(found)
        self.push(found, _COST)

    def store(self, index: int) -> None:
        """Store the value on top of the stack in the memo under ``index``, so that the pickle can use it again."""
        self.spend(_COST)
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        """Mark the top of the stack, for ``pop_marked``."""
        self.spend(40)
        self.marks.append(len(self.stack))

    def pop(self) -> None:
        """Pop the top of the stack; if a mark is on top, remove the mark instead."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def make_dict(self) -> None:
        """Pop the alternating keys and values above the last mark, and push the dict of them."""
        values = self.pop_marked()
        self.push({}, _COST)
        self.set_items(values)


_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
# Instructions whose argument is the value to push.
_SCALARS = frozenset(
    ["BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
     "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"]
)  # fmt: skip
_STEPS: dict[str, Callable[[Unpickler, Any], Any]] = {
    "NONE": lambda machine, _: machine.push(None, 8),
    "NEWTRUE": lambda machine, _: machine.push(True, 8),
    "NEWFALSE": lambda machine, _: machine.push(False, 8),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.pop_marked(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1], 8),
    # Containers.
    "EMPTY_TUPLE": lambda machine, _: machine.push_tuple([]),
    "TUPLE1": lambda machine, _: machine.push_tuple(machine.pop_last(1)),
    "TUPLE2": lambda machine, _: machine.push_tuple(machine.pop_last(2)),
    "TUPLE3": lambda machine, _: machine.push_tuple(machine.pop_last(3)),
    "TUPLE": lambda machine, _: machine.push_tuple(machine.pop_marked()),
    "EMPTY_LIST": lambda machine, _: machine.push([], _COST),
    "LIST": lambda machine, _: machine.push(machine.pop_marked(), _COST),
    "APPEND": lambda machine, _: machine.append(machine.pop_last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
    "EMPTY_DICT": lambda machine, _: machine.push({}, _COST),
    "DICT": lambda machine, _: machine.make_dict(),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    "EMPTY_SET": lambda machine, _: machine.push(Call(Global("builtins.set"), ()), 2 * _COST),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_marked()),
    "FROZENSET": lambda machine, _: machine.push(Call(Global("builtins.frozenset"), machine.pop_marked()), 2 * _COST),
    # Objects.
    "GLOBAL": lambda machine, argument: machine.push_global(*argument),
    "STACK_GLOBAL": lambda machine, _: machine.push_global(*machine.pop_last(2)),
    "REDUCE": lambda machine, _: machine.push_call(*machine.pop_last(2)),
    "NEWOBJ": lambda machine, _: machine.push_call(*machine.pop_last(2)),
    "NEWOBJ_EX": lambda machine, _: machine.push_call(*machine.pop_last(3)[:2]),
    "BUILD": lambda machine, _: machine.drop_state(),
    "BINPERSID": lambda machine, _: machine.push_persistent(machine.stack.pop()),
    # The memo.
    "BINPUT": lambda machine, argument: machine.store(argument),
    "LONG_BINPUT": lambda machine, argument: machine.store(argument),
    "MEMOIZE": lambda machine, _: machine.store(len(machine.memo)),
    "BINGET": lambda machine, argument: machine.push(machine.memo[argument], 8),
    "LONG_BINGET": lambda machine, argument: machine.push(machine.memo[argument], 8),
    # The protocol and the frames, which serve only to read from a stream.
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
}
