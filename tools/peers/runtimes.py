"""Inference runtimes that people use instead of PyTorch; each is set up as its manual says for latency."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers import Step, Task


def opencv(task: Task) -> Step:
    """OpenCV's own reader of Caffe's files, and its own kernels."""
    import cv2

    cv2.setNumThreads(task.threads)
    net = cv2.dnn.readNetFromCaffe(task.deploy, task.weights)
    images = task.images()

    def step() -> np.ndarray[Any, Any]:
        net.setInput(images, "data")
        return net.forward("score")  # type: ignore[no-any-return]

    return step


def onnxruntime(task: Task) -> Step:
    """Microsoft's runtime, all optimisations on."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(task.onnx, options, providers=["CPUExecutionProvider"])
    images = task.images()

    def step() -> np.ndarray[Any, Any]:
        return session.run(["score"], {"data": images})[0]  # type: ignore[no-any-return]

    return step


def openvino(task: Task, precision: str) -> Step:
    """Intel's runtime, compiled for the size of the images."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(task.onnx)
    model.reshape([task.batch, 3, task.height, task.width])
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = core.compile_model(model, "CPU", config).create_infer_request()
    images = task.images()

    def step() -> np.ndarray[Any, Any]:
        request.infer([images])
        return request.get_output_tensor(0).data.copy()  # type: ignore[no-any-return]

    return step
