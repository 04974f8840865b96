"""Damaged files: the error is always a ReproductionError, and memory stays in proportion to the file's size.

Files of Caffe and of our writers are cut, spliced and overwritten at random, from fixed seeds. `make test` runs a few
hundred cases, `make test-all` tens of thousands.
"""

import random
import re
import resource
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import blobs, caffemodel, hdf5, weights
from reproduction.caffe.formats.hdf5_file.messages import HDF5Dataset
from reproduction.caffe.formats.hdf5_file.values import read_values
from reproduction.caffe.schema import BlobProto, NetParameter, SolverState
from tests.helpers.paths import GOLDEN

# A damaged model may still be read, with a warning about what its layers ignore.
pytestmark = pytest.mark.filterwarnings("ignore::reproduction.caffe.errors.ReproductionWarning")

SMALL = GOLDEN / "legacy/v1_tiny_vgg.caffemodel"
WIRE = {
    GOLDEN / "legacy/v0.caffemodel": NetParameter,
    SMALL: NetParameter,
    GOLDEN / "snapshot/snapshot_iter_3.caffemodel": NetParameter,
    GOLDEN / "snapshot/snapshot_iter_3.solverstate": SolverState,
}
KEYED = (".caffemodel", ".h5", ".safetensors", ".npz", ".pt")
MEMORY = 256 << 20  # bytes that the whole process may grow by, over all cases


# ---- mutations: (bytes, random) -> bytes


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random) -> bytes:
    a, b, size = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 200)
    return data[:a] + data[b : b + size] + data[a + rng.choice((0, size)) :]


def inflate(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a few bytes by a number that is far too large, as a length would be read."""
    at = rng.randrange(len(data))
    number = rng.choice(
        (b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff\xff\xff\x7f", b"\x80" * 12, b"\xff" * 8)
    )
    return data[:at] + number + data[at + rng.choice((0, len(number))) :]


def blank(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((1, 8, 64, 512, 4096))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def scramble(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((1, 4, 16, 256))
    return data[:at] + rng.randbytes(size) + data[at + size :]


def head(data: bytes, rng: random.Random) -> bytes:
    """Damage near the start, where the structure is."""
    return rng.choice((flip, scramble, inflate))(data[:300], rng) + data[300:]


def tail(data: bytes, rng: random.Random) -> bytes:
    """Damage near the end, where archives keep their directory."""
    return data[:-300] + rng.choice((flip, scramble, inflate, cut))(data[-300:], rng)


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000))


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    flip, cut, splice, inflate, blank, scramble, head, head, tail, noise
]  # fmt: skip


def mutants(seeds: list[bytes], count: int, seed: str):
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(MUTATIONS)(data, rng) or b"\0"
        yield data


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attempt(call: Callable[[], object], data: bytes) -> bool:
    """Return whether the call accepts the bytes; assert that it otherwise raises a ReproductionError of one line."""
    try:
        call()
    except ReproductionError as error:
        text = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}; {len(data)} bytes, head {data[:400].hex()}") from error
    else:
        return True
    assert "\n" not in text
    assert text.endswith((".", "?")), text
    return False


def write_and_read(data: bytes, message: type) -> None:
    """What is read can be written, and reads as the same again."""
    found = caffemodel.loads(data, message)
    for layer in getattr(found, "layer", []):
        for blob in layer.blobs:
            attempt(partial(blobs.to_array, blob), data)
    written = caffemodel.dumps(found)
    assert caffemodel.dumps(caffemodel.loads(written, message)) == written


def fuzz_wire(count: int) -> None:
    before = peak()
    accepted = 0
    for path, message in WIRE.items():
        # The heads of large files: their structure is there, and a case takes no time.
        seeds = [path.read_bytes(), *([path.read_bytes()[:4000]] * 8)]
        for data in mutants(seeds, count // len(WIRE), path.name):
            accepted += attempt(partial(write_and_read, data, message), data)
    assert accepted > count // 100, "the mutations are so coarse that nothing behind the first check is reached"
    assert peak() - before < MEMORY


def fuzz_weights(suffix: str, count: int, folder: Path) -> None:
    """Read whole files through the one door that users have, and touch every value."""
    net = NetParameter(name="small")
    rng = np.random.default_rng(0)
    for name in ("conv1", "inception/1x1", "up.2"):
        arrays = [rng.standard_normal((2, 3, 2, 2)).astype(np.float32), rng.standard_normal(2)]
        net.layer.add(name=name, type="Convolution", blobs=[blobs.from_array(each) for each in arrays])
    small, path = folder / f"seed{suffix}", folder / f"case{suffix}"
    weights.write(weights.Weights(net), small)
    seeds = [small.read_bytes()] * 3
    if suffix == ".caffemodel":
        seeds += [path.read_bytes() for path in WIRE if WIRE[path] is NetParameter]
    before = peak()
    for data in mutants(seeds, count, suffix):
        path.write_bytes(data)
        attempt(lambda: [values.sum() for values in weights.read(path).arrays().values()], data)
    assert peak() - before < MEMORY


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


def test_damaged_messages_are_our_errors():
    fuzz_wire(1000)


@pytest.mark.slow
def test_tens_of_thousands_of_damaged_messages_are_our_errors():
    fuzz_wire(40_000)


@pytest.mark.parametrize("suffix", KEYED)
def test_damaged_weights_are_our_errors(suffix, tmp_path):
    fuzz_weights(suffix, 100, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", KEYED)
def test_thousands_of_damaged_weights_are_our_errors(suffix, tmp_path):
    fuzz_weights(suffix, 5_000, tmp_path)


def test_a_damaged_mean_is_our_error(tmp_path):
    seed = caffemodel.dumps(BlobProto(num=1, channels=3, height=2, width=2, data=np.zeros(12)))
    for data in mutants([seed], 300, "mean"):
        (tmp_path / "mean").write_bytes(data)
        attempt(lambda: blobs.load_mean(tmp_path / "mean"), data)


# ---- what lies behind checksums and compression, where damage to whole files never comes


def rezipped(name: str, path: Path):
    """Return a function that writes bytes as the member of a zip archive, with a checksum that fits."""

    def write(data: bytes) -> Path:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, data)
            for key in range(3 if name.startswith("a/") else 0):
                file.writestr(f"a/data/{key}", bytes(64))
        return path

    return write


def pickles(folder: Path) -> list[bytes]:
    """Return the pickles of checkpoints, in each protocol."""
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.nn.Parameter(torch.ones(3))}
    checkpoint = {"epoch": 3, "best": np.float64(1.5), "more": [np.arange(4), {1, 2}], "state_dict": state}
    found = []
    for protocol in (2, 4, 5):
        torch.save(checkpoint, folder / "seed.pt", pickle_protocol=protocol)
        with zipfile.ZipFile(folder / "seed.pt") as file:
            found.append(file.read(next(name for name in file.namelist() if name.endswith("data.pkl"))))
    return found


def arrays(folder: Path) -> list[bytes]:
    found = []
    for values in (np.arange(6.0).reshape(2, 3), np.arange(4, dtype=">f4"), np.asfortranarray(np.ones((2, 3)))):
        np.save(folder / "seed.npy", values)
        found.append((folder / "seed.npy").read_bytes())
    return found


def sum_weights(path: Path) -> None:
    for values in weights.read(path).arrays().values():
        values.sum()


@pytest.mark.parametrize(
    ("seeds", "member", "suffix"), [(pickles, "a/data.pkl", ".pt"), (arrays, "a.weight.npy", ".npz")]
)
def test_damage_that_no_checksum_shows_is_our_error(seeds, member, suffix, tmp_path):
    write = rezipped(member, tmp_path / f"case{suffix}")
    for data in mutants(seeds(tmp_path), 200, suffix):
        path = write(data)
        attempt(partial(sum_weights, path), data)


BLOCKS = re.compile(b"TREE|SNOD|HEAP|OHDR|OCHK|BTHD|BTLF|FRHP|FHDB|FADB|FAHD|GCOL")


def addressed(data: bytes, rng: random.Random) -> bytes:
    """Damage that keeps an HDF5 file's structure: addresses and sizes that become others of the file."""
    out = bytearray(data)
    blocks = [match.start() for match in BLOCKS.finditer(data)]
    places = [at for at in range(len(data) - 8) if 0 < int.from_bytes(data[at : at + 8], "little") < len(data)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = rng.choice((rng.choice(blocks), rng.randrange(len(data)), rng.randrange(300), 2**64 - 1, 2**63, 0))
        at = rng.choice(places)
        out[at : at + 8] = value.to_bytes(8, "little")
    return bytes(out)


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_damaged_addresses_of_hdf5_are_our_errors(version, tmp_path):
    seed, path = tmp_path / "seed.h5", tmp_path / "case.h5"
    with h5py.File(seed, "w", libver=version) as file:
        for i in range(12):
            file[f"data/l{i}/0"] = np.arange(6.0).reshape(2, 3)
        file.create_dataset("x", data=np.arange(15).reshape(5, 3), chunks=(2, 2), compression="gzip", shuffle=True)
        file.create_dataset("y", data=np.arange(15).reshape(5, 3), chunks=(3, 1), maxshape=(None, None))
    rng, before = random.Random(version), peak()

    def read() -> None:
        file = hdf5.HDF5Reader(path).file
        for name in ("x", "y"):
            found = file.member(file.root, name)
            if isinstance(found, HDF5Dataset) and found.dtype is not None and found.shape is not None:
                read_values(file, found, np.float32)

    for _ in range(100):
        data = addressed(seed.read_bytes(), rng)
        path.write_bytes(data)
        attempt(lambda: [values.sum() for values in weights.read(path).arrays().values()], data)
        attempt(read, data)
    assert peak() - before < MEMORY
