"""Weights and inputs of the fork nets' golden files. numpy and seeded.py (beside it or in ../checks) only."""

import numpy as np
from seeded import make_weight, rng, sample_index, synth_image  # noqa: F401


def fork_weight(kind, layer, i, shape, seed=1):
    """Parameter blob i of `layer`, or None where the filler's value stays. kind comes from the golden's meta["recipe"]."""
    if kind == "keep":
        return None
    if kind == "bilinear":
        return make_weight(layer, i, shape, i == 0, seed)
    if kind.startswith("he"):  # "he:0.02": every blob times 0.02
        w = make_weight(layer, i, shape, False, seed)
        return w * np.float32(kind[3:]) if kind[2:] else w
    if kind == "crf":  # spatial and bilateral weights, Potts compatibility
        return (np.eye(shape[-1], dtype=np.float32) * (3, 5, -1)[i]).reshape(shape)
    r = rng("%s/%d/%d" % (layer, i, seed)).standard_normal(shape)
    near1, small, var = 1 + 0.1 * r, 0.1 * r, 0.5 + np.abs(r)
    if kind == "stat":  # BatchNorm of BVLC: mean, variance, factor
        v = (small, var, np.ones(shape))[i]
    elif kind == "affine":  # Scale, SegNet's BN: scale, shift
        v = (near1, small)[i]
    elif kind == "bn4":  # PSPNet's BN: slope, bias, mean, variance
        v = (near1, small, small, var)[i]
    elif kind == "rnn":  # input, hidden, bias
        v = (0.1 * r, 0.1 * r, 0.1 * r)[i]
    return np.asarray(v).astype(np.float32)


def fork_input(name, shape, seed=1):
    """A bottom-less top: an image in BGR minus its mean where it has 3 channels, im_info, rois, or noise."""
    if name == "data_dim":
        return np.array([IM[0], IM[1]], np.float32).reshape(shape)
    if name == "im_info":
        h, w = IM[0], IM[1]
        return np.array([[h, w, 1, 1][: shape[-1]]], np.float32).reshape(shape)
    if name == "rois":
        n, h, w = shape[0], IM[0], IM[1]
        r = rng("rois/%d/%d" % (n, seed))
        x, y = np.sort(r.uniform(0, w - 1, (n, 2)), 1), np.sort(r.uniform(0, h - 1, (n, 2)), 1)
        return np.stack([np.zeros(n), x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).astype(np.float32).reshape(shape)
    if len(shape) == 4 and shape[1] in (1, 3):
        im = synth_image(shape[2], shape[3], seed).astype(np.float32)
        d = (im[:, :, ::-1] - np.array((104.00699, 116.66877, 122.67892), np.float32)).transpose(2, 0, 1)[None]
        return np.repeat(d[:, : shape[1]], shape[0], 0)
    return rng("input/%s/%d" % (name, seed)).standard_normal(shape).astype(np.float32)


IM = [0, 0]  # height and width of the image input, set by the caller before im_info and rois
