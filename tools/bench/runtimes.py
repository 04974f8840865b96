"""The inference runtimes that people use instead of PyTorch, each configured for latency as its manual recommends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders import Step, Task


def opencv(task: Task) -> Step:
    """Return a step of OpenCV, which reads Caffe's files and has kernels of a separate implementation."""
    import cv2

    cv2.setNumThreads(task.threads)
    net = cv2.dnn.readNetFromCaffe(task.deploy, task.weights)
    images = task.images()

    def step() -> np.ndarray[Any, Any]:
        net.setInput(images, task.input)
        return np.asarray(net.forward(task.output))

    return step


def onnxruntime(task: Task) -> Step:
    """Return a step of ONNX Runtime, with all optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    for axis, size in (("N", task.batch), ("H", task.height), ("W", task.width)):
        options.add_free_dimension_override_by_name(axis, size)  # as a user who knows the size would
    session = ort.InferenceSession(task.onnx, options, providers=["CPUExecutionProvider"])
    images = task.images()

    def step() -> np.ndarray[Any, Any]:
        return session.run([task.output], {task.input: images})[0]  # type: ignore[no-any-return]

    return step


def openvino(task: Task, precision: str = "f32") -> Step:
    """Return a step of OpenVINO, compiled for the size of the images."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(task.onnx)
    model.reshape([task.batch, task.channels, task.height, task.width])
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


def ncnn(task: Task, precision: str = "f32") -> Step:
    """Return a step of ncnn with its other defaults; it computes one image at a time."""
    import ncnn as runtime

    net = runtime.Net()
    net.opt.num_threads = task.threads
    # By default ncnn rounds to 16 bits on CPUs that support it.
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, option, precision in option)
    template = Path(task.ncnn)
    param = template.with_name(f"{task.height}x{task.width}.param")
    param.write_text(template.read_text().format(height=task.height, width=task.width))
    if net.load_param(str(param)) or net.load_model(str(template.with_suffix(".bin"))):
        raise ValueError("ncnn cannot read what was written for it")
    images = [runtime.Mat(image).clone() for image in np.ascontiguousarray(task.images())]  # Mat ignores strides

    def step() -> np.ndarray[Any, Any]:
        scores = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input(task.input, image)
            failed, score = extractor.extract(task.output)
            if failed:
                raise ValueError(f"ncnn ends with {failed}")
            scores.append(np.array(score))
        return np.stack(scores)

    return step
