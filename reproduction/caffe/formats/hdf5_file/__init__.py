"""Reader of HDF5 files that does not use the HDF5 library.

The HDF5 library trusts its input: some files of a few kilobytes make it loop forever, crash the process, or exhaust
memory. This reader checks every size against the file, reads every block once, and limits the number of items.

It reads what datasets of numbers and short strings need: groups of both kinds, contiguous and chunked datasets, and the
filters of h5py. Everything else raises an error that names the feature.

Each module cites the sections of The HDF Group's "HDF5 File Format Specification Version 3.0" that it implements:

1. ``cursor``    numbers and blocks (II), and the limits that end the reading of a malicious file
2. ``trees``     the two kinds of B-trees (III.A)
3. ``heaps``     the heaps of names, links and strings (III.D, III.E, III.G)
4. ``messages``  the messages of object headers (IV.A.2)
5. ``objects``   the superblock (II.A), object headers (IV.A.1) and groups (III.B, III.C)
6. ``values``    the values of a dataset: contiguous, or in chunks with an index (VII) and filters (IV.A.2.l)
"""
