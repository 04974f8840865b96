"""OpenCV 4's ``cv2.dnn`` for Caffe's files, which OpenCV 5 no longer reads.

    from reproduction import cv2dnn

    net = cv2dnn.readNetFromCaffe("deploy.prototxt", "net.caffemodel")
    net.setInput(cv2dnn.blobFromImage(image, 1.0, (224, 224), (104, 117, 123)))
    scores = net.forward()

A program that does ``cv2.dnn.readNetFromCaffe`` needs no other change than this import. The numbers are those of Caffe,
and those of OpenCV 4 up to rounding. Nets also load that OpenCV 4 rejects: see ``docs/caffe_models.md``.

1. ``net``     ``readNetFromCaffe`` and the net that it returns
2. ``images``  ``blobFromImage`` and OpenCV's resizing

Source: opencv/opencv@4.x modules/dnn/include/opencv2/dnn/dnn.hpp.
"""

from reproduction.cv2dnn import images, net
from reproduction.cv2dnn.images import *  # noqa: F403 - those in its __all__
from reproduction.cv2dnn.net import *  # noqa: F403

__all__ = images.__all__ + net.__all__
