"""Microsoft Caffe: R-FCN for Windows, with the losses of single examples."""

from reproduction.caffe.schema import add_dialect

MICROSOFT = add_dialect("microsoft", "Microsoft Caffe", "Microsoft/caffe@ed05614", 2016)
