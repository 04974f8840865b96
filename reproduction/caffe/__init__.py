"""Caffe's semantics, without Caffe.

1. ``schema``      every message of the format, declared once
2. ``prototxt``    text <-> message;  ``caffemodel``  bytes <-> message;  ``hdf5``  .caffemodel.h5 <-> message
3. ``upgrade``     old nets and solvers -> today's
4. ``geometry``    the one arithmetic for sizes;  ``netspec``  nets written in Python
5. ``layers``      one class for each layer type;  ``fillers``  how their parameters begin
6. ``graph``       message -> ordered layers;  ``net``  graph -> ``nn.Module``
7. ``weights``     every file of weights <-> message
8. ``dialects``    what forks of Caffe wrote, read as Caffe's own
9. ``solver``      a solver's nets and its loop;  ``rules``  rates and updates;  ``snapshot``  its files
"""

from reproduction.caffe import dialects as dialects
