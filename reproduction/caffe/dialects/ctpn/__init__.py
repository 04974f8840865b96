"""CTPN, which finds lines of text: LSTMs over the columns of a map."""

from reproduction.caffe.schema import add_dialect

CTPN = add_dialect("ctpn", "CTPN", "tianzhi0549/CTPN@f77ec9e", 2016)
