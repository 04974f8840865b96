"""Small trainings: the published ones with narrow nets and few images, and one of a net of two layers."""

import json
from dataclasses import replace

import torch

from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.nets import net_files
from reproduction.fcn.train import recipes, training
from tests.golden import seeded
from tests.helpers import dataset_trees

_named = recipes.find_recipe  # tests patch recipes.find_recipe with narrow nets

IDS = [f"2008_{i:06d}" for i in range(6)]
VALIDATED = ["2007_000033", "2007_000042", "2007_000061"]

NET = """name: "tiny"
layer {{ name: "data" type: "Python" top: "data" top: "label" python_param {{ module: "voc_layers" layer: "{layer}"
  param_str: "{{'{key}': '../data/{folder}', 'seed': 1337, 'split': '{split}', 'mean': (104.0, 116.7, 122.7)}}" }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {{
  num_output: 6 kernel_size: 3 pad: 1 weight_filler {{ type: "gaussian" std: 0.02 }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "drop1" type: "Dropout" bottom: "pool1" top: "pool1" }}
layer {{ name: "score1" type: "Convolution" bottom: "pool1" top: "score1"
  convolution_param {{ num_output: 21 kernel_size: 1 }} }}
layer {{ name: "upscore" type: "Deconvolution" bottom: "score1" top: "upscore" param {{ lr_mult: 0 }}
  convolution_param {{ num_output: 21 kernel_size: 4 stride: 2 bias_term: false group: 21
  weight_filler {{ type: "bilinear" }} }} }}
layer {{ name: "score" type: "Crop" bottom: "upscore" bottom: "data" top: "score"
  crop_param {{ axis: 2 offset: 1 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param {{ ignore_label: 255 normalize: false }} }}
"""

SOLVER = """train_net: "train.prototxt"
test_net: "val.prototxt"
test_iter: 3
test_interval: 4
base_lr: 1e-7
lr_policy: "step"
gamma: 0.5
stepsize: 3
momentum: 0.9
weight_decay: 0.0005
max_iter: 8
snapshot: 2
display: 2
average_loss: 2
"""


def tiny(folder, net=NET, solver=SOLVER):
    """Write a solver and its nets of two layers; return the solver's path."""
    folder.mkdir(parents=True, exist_ok=True)
    voc = {"layer": "VOCSegDataLayer", "key": "voc_dir", "folder": "pascal/VOC2011", "split": "seg11valid"}
    sbd = {"layer": "SBDDSegDataLayer", "key": "sbdd_dir", "folder": "sbdd/dataset", "split": "train"}
    (folder / "train.prototxt").write_text(net.format(**sbd))
    (folder / "val.prototxt").write_text(net.format(**voc))
    (folder / "solver.prototxt").write_text(solver)
    return folder / "solver.prototxt"


def data(root):
    """Write SBD and VOC 2011, with a few images for training and validation; return the data root."""
    dataset_trees.sbd(root / "sbdd/dataset", {"train": IDS})
    dataset_trees.voc(root / "pascal/VOC2011", {"seg11valid": VALIDATED})
    return root


def read_json_lines(path):
    """Return the JSON objects of a file that has one in each line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def stage(name, divisor=64, **fields):
    """Return the training of a net whose convolutions of 64 channels and more are narrowed by the divisor."""
    found = _named(name)
    train, test = narrow(found.train_net_param, divisor), narrow(found.test_net_param, divisor)
    return replace(found, train_net_param=train, test_net_param=test).with_solver(**fields)


def narrow(message, divisor=64):
    """Return a copy of a net whose convolutions of 64 channels and more are narrowed by the divisor."""
    message = message.copy()
    for layer in message.layer:
        if layer.type == "Convolution" and layer.convolution_param.num_output >= 64:
            layer.convolution_param.num_output //= divisor
            layer.convolution_param.clear("group")
    return message


def imagenet(path, like="voc-fcn32s", divisor=64):
    """Write a narrow VGG16, or CaffeNet if ``like`` is ``voc-fcn-alexnet``; return the path."""
    deploy = narrow(net_files.build_deploy(_named(like).record), divisor)
    keep = [layer for layer in deploy.layer if not any(word in layer.name for word in ("score", "up"))]
    made = Net(NetParameter(layer=keep))
    with torch.no_grad():
        for name, blobs in made.params.items():
            for i, blob in enumerate(blobs):
                blob.copy_(torch.from_numpy(seeded.make_weight(name, i, tuple(blob.shape), False, 1)))
    message = made.to_proto()
    for layer in message.layer:
        if layer.name in ("fc6", "fc7"):  # as fully connected layers, as in the classifier
            outputs, *rest = layer.blobs[0].shape.dim
            layer.blobs[0].shape.dim = [outputs, rest[0] * rest[1] * rest[2]]
    caffemodel.dump(message, path)
    return path


def learn(solver, out, root):
    """Run the training of a solver file to its end, in a process that a test starts."""
    torch.set_num_threads(1)
    training.train(recipes.load_solver_recipe(solver), {}, training.TrainingOptions(out, root))
