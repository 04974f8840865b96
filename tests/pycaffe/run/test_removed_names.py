"""Names that libraries removed are provided to Python 3 programs, in installed and in optional packages."""

import importlib.util

import pytest

from reproduction.pycaffe.run import removed_names
from tests.helpers.pycaffe_programs import run_program

PROGRAM = """
import caffe, collections, fractions, inspect, io, os, time, unittest, warnings
import h5py, matplotlib, scipy, scipy.misc, scipy.ndimage, yaml
import numpy as np
import Image, ImageFont, ImageDraw
import PIL.Image
from scipy.misc import imread, imsave, imresize, comb, logsumexp
from scipy.misc.pilutil import imrotate
matplotlib.use('Agg', warn=False)
import matplotlib.pyplot as plt
import matplotlib.cm as cm
import skimage.io, skimage.filter, skimage.measure, cv2

assert Image is PIL.Image and Image.ANTIALIAS == PIL.Image.Resampling.LANCZOS and Image.LINEAR == Image.BILINEAR
picture = Image.fromstring('RGB', (2, 1), bytes(range(6)))
assert picture.tostring() == bytes(range(6)) and picture.offset(1, 0).tostring() == bytes([3, 4, 5, 0, 1, 2])
assert Image.isImageType(picture) and PIL.PILLOW_VERSION
font = ImageFont.load_default()
assert ImageDraw.Draw(picture).textsize('ab', font) == font.getsize('ab') > (0, 0)
assert scipy.misc.imresize(np.eye(4), 50).shape == scipy.ndimage.imread is None or imread is scipy.ndimage.imread
assert imrotate(np.eye(3), 90).shape == (3, 3) and comb(5, 2) == 10

assert np.in1d(np.eye(2), [1]).tolist() == [True, False, False, True]
assert np.rank([[1]]) == 2 and np.mat('1 2').shape == (1, 2) and np.asfarray([1]).dtype == float
assert np.product([2, 3]) == np.cumproduct([2, 3])[-1] == 6 and np.trapz([1, 1]) == 1
assert np.row_stack(([1], [2])).shape == (2, 1)
assert (np.NaN is np.nan) and np.float_ is np.float64 and np.lib.pad([1], 1, 'constant').size == 3
assert np.msort(np.array([[2, 1], [1, 3]])).tolist() == [[1, 1], [2, 3]] and np.math.pi > 3 and scipy.array is np.array
assert np.cast['float32']([1, 2]).dtype == np.float32 and np.find_common_type([np.int8, np.float32], []) == np.float32
assert np.obj2sctype('f4') is np.float32 and np.float32 in np.sctypes['float'] and np.safe_eval('[1]') == [1]
assert set(np.random.random_integers(1, 2, 99)) == {1, 2}
a = np.zeros((2, 2), np.uint8)
a.itemset((0, 1), 5)
assert a.tostring() == bytes([0, 5, 0, 0]) and a.ptp() == 5 and np.array(a, dtype=float, copy=False).sum() == 5

assert yaml.load("'feat_stride': 16") == {'feat_stride': 16} and list(yaml.load_all('1')) == [1]
for loader in ({}, {'Loader': yaml.SafeLoader}):
    try:
        yaml.load('!!python/object/apply:os.getcwd []', **loader)
    except yaml.constructor.ConstructorError as error:
        assert 'could not determine a constructor' in str(error)
    else:
        raise AssertionError('a Python object was made')

with h5py.File('x.h5') as file:
    file['data'] = np.arange(3)
    assert file['data'].value.tolist() == [0, 1, 2]

class Own:
    tostring = lambda self: 'mine'
assert Own().tostring() == 'mine'
args, varargs, keywords, defaults = inspect.getargspec(lambda x, *y, z=1: 0)
assert (args, varargs, collections.Mapping, os.errno.ENOENT) == (['x'], 'y', collections.abc.Mapping, 2)
assert time.clock() > 0 and collections.OrderedDict
unittest.TestCase().assertEquals(1, 1)

assert cm.get_cmap('jet')(0.5) == plt.get_cmap('jet')(0.5)
plt.figure(); plt.hold(True); plt.gca().hold(False)
assert abs(sum(plt.hist([1, 2, 3], normed=True, bins=2)[0]) - 1) < 1e-9
plt.gca().set_axis_bgcolor('red')

assert skimage.io.imread('x.png', as_grey=True) == ('x.png', True) and skimage.filter is skimage.filters
assert skimage.measure.compare_ssim(1, 2) == 'similar' and skimage.filters.gaussian_filter is skimage.filters.gaussian
assert (cv2.CV_LOAD_IMAGE_COLOR, cv2.CV_AA, cv2.cv.CV_CAP_PROP_FPS, cv2.cv.CV_BGR2GRAY) == (1, 16, 5, 6)
"""

#: What scikit-image and OpenCV are today, as far as the program asks.
STUBS = {
    "skimage/__init__.py": "",
    "skimage/io.py": "def imread(fname, as_gray=False): return fname, as_gray\n",
    "skimage/filters.py": "def gaussian(x): pass\n",
    "skimage/measure.py": "",
    "skimage/metrics.py": "def structural_similarity(a, b): return 'similar'\n",
    "cv2.py": "IMREAD_COLOR, IMREAD_GRAYSCALE, IMREAD_UNCHANGED, LINE_AA = 1, 0, -1, 16\n"
    "CAP_PROP_FPS, COLOR_BGR2GRAY = 5, 6\n",
}


def test_names_that_libraries_removed_are_found(tmp_path):
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "program.py").write_text(PROGRAM)
    code, _, err = run_program(tmp_path, "program.py", PYTHONWARNINGS="ignore")
    assert (code, err) == (0, "")


INSTALLED = [name for name in removed_names.MOVED if importlib.util.find_spec(name.split(".")[0])]


@pytest.mark.parametrize("module", INSTALLED)
def test_every_equivalent_of_a_removed_name_exists(module):
    after_restoring = {"numpy.in1d"}
    for path in {*removed_names.MOVED[module].values()} - after_restoring:
        owner, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(owner), name) if owner else importlib.import_module(name)


def test_fallbacks_and_replacements_of_modules_exist():
    for path in (*removed_names.FALLBACKS.values(), *removed_names.MODULES.values()):
        assert importlib.import_module(path) if importlib.util.find_spec(path.split(".")[0]) else path in NOT_INSTALLED


#: Replacements in packages that this project does not need.
NOT_INSTALLED = {"joblib", "skimage.filters"}
