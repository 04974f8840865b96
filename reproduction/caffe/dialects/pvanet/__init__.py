"""PVANet: proposals of regions in C++."""

from reproduction.caffe.schema import add_dialect

PVANET = add_dialect("pvanet", "PVANet", "sanghoon/caffe@6068dd0", 2016)
