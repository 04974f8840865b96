"""``import caffe`` for an environment in which ``fcn caffe install`` was run: this project's ``pycaffe``."""

from reproduction.pycaffe.run import caffe_alias

caffe_alias.install()  # replaces this module in sys.modules, which is what the import statement then returns
