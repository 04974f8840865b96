"""What forks of Caffe wrote, read as BVLC's Caffe would have written it.

A dialect declares what a fork adds to a message of the schema (``Message.dialects``), and adds functions to
``upgrade`` and ``blobs`` that turn it into Caffe's own fields when a file is read. The rest of ``caffe`` knows no fork,
and everything is written in BVLC's form. Dialects import the rest of ``caffe``; nothing in it imports them but the
package itself, so that all of them are there whatever is imported.

1. ``future``       Crop layers of the Caffe of 2014 and 2015
"""

from reproduction.caffe.dialects import future

__all__ = ["future"]
