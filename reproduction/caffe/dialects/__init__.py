"""What forks of Caffe wrote, read as BVLC's Caffe would have written it.

A dialect declares what a fork adds to a message of the schema (``Message.dialects``), and adds functions to
``upgrade`` and ``blobs`` that turn it into Caffe's own fields when a file is read. The rest of ``caffe`` knows no fork,
and everything is written in BVLC's form. Dialects import the rest of ``caffe``; nothing in it imports them but the
package itself, so that all of them are there whatever is imported.

1. ``future``       Crop layers of the Caffe of 2014 and 2015
2. ``ceil_mode``    how forks call the rounding of pooled sizes
3. ``nvidia``       the weights and BatchNorm layers of NVIDIA Caffe
"""

from reproduction.caffe.dialects import ceil_mode, future, nvidia

__all__ = ["ceil_mode", "future", "nvidia"]
