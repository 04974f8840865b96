"""A plain implementation of MultiBoxLoss in double precision, one box at a time, for comparison."""

import math

import numpy as np

PRIORS, CLASSES = 12, 3


def area(b):
    return max(b[2] - b[0], 0) * max(b[3] - b[1], 0) if b[2] >= b[0] and b[3] >= b[1] else 0


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return w * h / (area(a) + area(b) - w * h) if w > 0 and h > 0 else 0


def size_center(b):
    return (b[2] - b[0], b[3] - b[1]), ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)


def encode(box, prior, variance, code):
    (w, h), (x, y) = size_center(prior)
    unit = (w, h, w, h) if code == "CORNER_SIZE" else (1,) * 4
    out = [(b - p) / u for b, p, u in zip(box, prior, unit, strict=True)]
    if code == "CENTER_SIZE":
        (bw, bh), (bx, by) = size_center(box)
        out = [(bx - x) / w, (by - y) / h, math.log(bw / w), math.log(bh / h)]
    return [o / v for o, v in zip(out, variance, strict=True)]


def decode(loc, prior, variance, code):
    (w, h), (x, y) = size_center(prior)
    t = [v * c for v, c in zip(variance, loc, strict=True)]
    if code == "CENTER_SIZE":
        cx, cy, bw, bh = t[0] * w + x, t[1] * h + y, math.exp(t[2]) * w, math.exp(t[3]) * h
        return [cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2]
    unit = (w, h, w, h) if code == "CORNER_SIZE" else (1,) * 4
    return [p + c * u for p, c, u in zip(prior, t, unit, strict=True)]


def match(found, true, o):
    """Return the index of the true box of each box, -1 without one and -2 if it is ignored, and the overlaps."""
    index, greatest, overlaps = [-1] * len(found), [0.0] * len(found), {}
    for i, box in enumerate(found):
        if o["ignore_cross_boundary_bbox"] and any(c < 0 or c > 1 for c in box):
            index[i] = -2
            continue
        for j, other in enumerate(true):
            if iou(box, other) > 1e-6:
                overlaps[i, j] = iou(box, other)
                greatest[i] = max(greatest[i], overlaps[i, j])
    pool = list(range(len(true)))
    while pool:
        pairs = [(overlaps[i, j], -i, -j) for i, j in overlaps if index[i] == -1 and j in pool]
        if not pairs:
            break
        value, i, j = max(pairs)
        index[-i], greatest[-i] = -j, value
        pool.remove(-j)
    if o["match_type"] == "PER_PREDICTION":
        for i in range(len(found)):
            own = [(overlaps[i, j], -j) for j in range(len(true)) if (i, j) in overlaps]
            if index[i] == -1 and own and max(own)[0] >= o["overlap_threshold"]:
                index[i] = -max(own)[1]
    return index, greatest


def conf_loss(scores, label, o):
    if o["conf_loss_type"] == "SOFTMAX":
        return math.log(sum(math.exp(s - scores[label]) for s in scores))
    return sum(math.log(1 + math.exp(s)) - s * (c == label) for c, s in enumerate(scores))


def loc_loss(difference, o):
    if o["loc_loss_type"] == "L2":
        return sum(d * d / 2 for d in difference)
    return sum(d * d / 2 if abs(d) < 1 else abs(d) - 0.5 for d in difference)


DEFAULTS = {
    "loc_loss_type": "SMOOTH_L1", "conf_loss_type": "SOFTMAX", "loc_weight": 1.0, "share_location": True,
    "match_type": "PER_PREDICTION", "overlap_threshold": 0.5, "use_prior_for_matching": True, "use_difficult_gt": True,
    "neg_pos_ratio": 3.0, "neg_overlap": 0.5, "code_type": "CORNER", "encode_variance_in_target": False,
    "map_object_to_agnostic": False, "ignore_cross_boundary_bbox": False, "bp_inside": False,
    "mining_type": "MAX_NEGATIVE", "sample_size": 64, "use_prior_for_nms": False, "normalization": "VALID",
    "background_label_id": 0, "num_classes": CLASSES, "nms": None,
}  # fmt: skip


def compute(loc, conf, priors, true, **options):
    """Return the loss; the arguments are arrays as the bottoms of the layer, the options its fields."""
    o = {**DEFAULTS, **options}
    classes = o["num_classes"]
    prior, variance = priors.astype(float).reshape(2, -1, 4).tolist()
    rows = [row for row in true.astype(float).reshape(-1, 8).tolist() if row[0] != -1]
    rows = [row for row in rows if o["use_difficult_gt"] or not row[7]]
    images, count, total = len(loc), 0, 0.0
    ones = [[1.0] * 4] * len(prior)
    for image in range(images):
        truth = [row for row in rows if row[0] == image]
        boxes, labels = [row[3:7] for row in truth], [int(row[1]) for row in truth]
        places = loc[image].astype(float).reshape(len(prior), -1, 4).tolist()
        scores = conf[image].astype(float).reshape(len(prior), classes).tolist()
        used = ones if o["encode_variance_in_target"] else variance
        names = [-1] if o["share_location"] else [c for c in range(classes) if c != o["background_label_id"]]
        matches = {}
        for c in names if truth else []:
            decoded = [decode(places[p][max(c, 0)], prior[p], used[p], o["code_type"]) for p in range(len(prior))]
            if o["use_prior_for_matching"]:
                index, greatest = match(prior, boxes, o)
                if c >= 0:
                    index = [j if j >= 0 and labels[j] == c else -1 for j in index]
            else:
                chosen = [j for j in range(len(boxes)) if c in (-1, labels[j])]
                index, greatest = match(decoded, [boxes[j] for j in chosen], o)
                index = [chosen[j] if j >= 0 else j for j in index]
            matches[c] = index, greatest, decoded

        def place_loss(p, c, j, boxes=boxes, places=places, matches=matches):
            target = encode(boxes[j], prior[p], variance[p], o["code_type"])
            made = [x / v for x, v in zip(places[p][max(c, 0)], variance[p], strict=True)]
            made = made if o["encode_variance_in_target"] else places[p][max(c, 0)]
            inside = prior[p] if o["use_prior_for_matching"] else matches[c][2][p]
            keep = [not o["bp_inside"] or 0 <= b <= 1 for b in inside]
            return loc_loss([(m - t) * k for m, t, k in zip(made, target, keep, strict=True)], o)

        for c, (index, greatest, decoded) in matches.items():
            background = o["background_label_id"]
            losses = [conf_loss(scores[p], labels[j] if j >= 0 else background, o) for p, j in enumerate(index)]
            negatives = []
            if o["mining_type"] == "HARD_EXAMPLE":
                losses = [x + (place_loss(p, c, index[p]) if index[p] >= 0 else 0) for p, x in enumerate(losses)]
                eligible, wanted = list(range(len(index))), o["sample_size"]
            elif o["mining_type"] == "MAX_NEGATIVE":
                eligible = [p for p, j in enumerate(index) if j == -1 and greatest[p] < o["neg_overlap"]]
                wanted = int(sum(j >= 0 for j in index) * o["neg_pos_ratio"])
            if o["mining_type"] != "NONE":
                order = sorted(eligible, key=lambda p: -losses[p])
                if o["nms"]:
                    kept = []
                    compared = prior if o["use_prior_for_nms"] else decoded
                    for p in order[: o["nms"][1]]:
                        if area(compared[p]) >= 1e-5 and all(
                            iou(compared[p], compared[q]) <= o["nms"][0] for q in kept
                        ):
                            kept.append(p)
                    order = kept
                picked = set(order[:wanted])
                negatives = [p for p in picked if index[p] == -1]
                if o["mining_type"] == "HARD_EXAMPLE":
                    index[:] = [-1 if j >= 0 and p not in picked else j for p, j in enumerate(index)]
            for p, j in enumerate(index):
                if j >= 0:
                    count += 1
                    total += o["loc_weight"] * place_loss(p, c, j)
                    if o["mining_type"] != "NONE":
                        label = background + 1 if o["map_object_to_agnostic"] else labels[j]
                        total += conf_loss(scores[p], label, o)
            total += sum(conf_loss(scores[p], background, o) for p in negatives)
        if o["mining_type"] == "NONE":
            for p in range(len(prior)):
                label = next(
                    (labels[m[0][p]] for m in reversed(matches.values()) if m[0][p] >= 0), o["background_label_id"]
                )
                if label and o["map_object_to_agnostic"]:
                    label = o["background_label_id"] + 1
                total += conf_loss(scores[p], label, o)
    divisor = {"VALID": count, "FULL": images * len(prior), "BATCH_SIZE": images, "NONE": 1}[o["normalization"]]
    return total / max(divisor, 1), count


def random_bottoms(seed, images=2, locations=1, classes=CLASSES, spread=0.5):
    """Return locations, scores, prior boxes and true boxes; the second image has no true boxes if there are three."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-0.15, 0.7, (PRIORS, 2))
    priors = np.concatenate([low, low + rng.uniform(0.2, 0.5, (PRIORS, 2))], 1)
    variances = np.broadcast_to([0.1, 0.15, 0.2, 0.25], priors.shape)
    rows = [[-1] * 8]
    for image in (each for each in range(images) if (images, each) != (3, 1)):
        for i in range(3):
            corner = rng.uniform(0, 0.5, 2)
            box = [*corner, *(corner + rng.uniform(0.2, 0.5, 2))]
            rows.append([image, rng.integers(1, classes), i, *box, int(i == 2)])
    loc = rng.normal(size=(images, PRIORS * locations * 4)) * spread
    conf = rng.normal(size=(images, PRIORS * classes)) * 2
    arrays = (loc, conf, np.stack([priors.reshape(-1), variances.reshape(-1)])[None], np.array(rows)[None, None])
    return [array.astype(np.float32) for array in arrays]
