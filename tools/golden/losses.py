"""Golden vectors of losses: values and gradients by torch and torchvision.

usage: python losses.py OUT_DIR [--seed N]

Cases, in OUT_DIR/losses/manifest.json, hold their options, shapes, inputs, the summed loss, what it is divided
by, and the gradients of the quotient with respect to every input that has one. All in float64, on inputs rounded
to float32. Made with torch 2.15.0 and torchvision 0.29.2 (CPU).
"""
import argparse
import json
import os

import torch
import torch.nn.functional as F
import torchvision

IGNORED = -100
cases = []


def rounded(*shape, scale=2.0):
    return (torch.randn(*shape) * scale).float().double().requires_grad_()


def flat(x):
    return x.detach().flatten().tolist()


def case(kind, mean, count, options=None, labels=None, where=None, **inputs):
    """records a case: mean is the loss divided by count"""
    names = [n for n, x in inputs.items() if x.requires_grad]
    gradients = torch.autograd.grad(mean, [inputs[n] for n in names], retain_graph=True)
    c = dict(kind=kind, options=options or {}, sum=(mean * count).item(), count=float(count),
             inputs={n: dict(shape=list(x.shape), values=flat(x)) for n, x in inputs.items()},
             gradients={n: flat(g) for n, g in zip(names, gradients)})
    if labels is not None:
        c["labels"] = dict(shape=list(labels.shape), values=labels.flatten().tolist())
    if where is not None:
        c["where"] = dict(shape=list(where.shape), values=where.flatten().tolist())
    cases.append(c)


def some_labels(classes, *shape, ignored=0.3):
    labels = torch.randint(classes, shape)
    labels[torch.rand(*shape) < ignored] = IGNORED
    labels.view(-1)[0] = classes - 1
    return labels


def some_weights(classes):
    return (torch.rand(classes) * 3 + 0.1).float().double()


def cross_entropy(*shape, smoothing=0.0, weighted=False, scale=2.0):
    classes = shape[-1]
    logits, labels = rounded(*shape, scale=scale), some_labels(classes, *shape[:-1])
    weights = some_weights(classes) if weighted else None
    mean = F.cross_entropy(logits.reshape(-1, classes), labels.flatten(), weight=weights, ignore_index=IGNORED, label_smoothing=smoothing)
    valid = labels[labels != IGNORED]
    count = weights[valid].sum() if weighted else len(valid)
    options = dict(smoothing=smoothing)
    if weighted:
        options["weights"] = weights.tolist()
    case("classes", mean, float(count), options, labels, logits=logits)


def focal(*shape, gamma=2.0, weighted=False):
    """the softmax form, by autograd on its formula"""
    classes = shape[-1]
    logits, labels = rounded(*shape), some_labels(classes, *shape[:-1])
    weights = some_weights(classes) if weighted else torch.ones(classes).double()
    valid = labels != IGNORED
    log_p = F.log_softmax(logits[valid], -1).gather(-1, labels[valid][:, None])[:, 0]
    w = weights[labels[valid]]
    count = w.sum()
    mean = (-w * (1 - log_p.exp()) ** gamma * log_p).sum() / count
    options = dict(focus=gamma)
    if weighted:
        options["weights"] = weights.tolist()
    case("classes", mean, float(count), options, labels, logits=logits)


def focal_binary(n, gamma, alpha):
    """torchvision's, of one logit z an example: two classes with logits (0, z)"""
    z = rounded(n)
    labels = torch.randint(2, (n,))
    mean = torchvision.ops.sigmoid_focal_loss(z, labels.double(), alpha=alpha, gamma=gamma, reduction="sum")
    options = dict(focus=gamma)
    count = float(n)
    if alpha >= 0:
        options["weights"] = [1 - alpha, alpha]
        count = float(torch.tensor([1 - alpha, alpha]).double()[labels].sum())
    case("focal_binary", mean / count, count, options, labels, z=z)


def r_drop(*shape, alpha=1.0, smoothing=0.0):
    """as the authors' program: half of both losses, half of both divergences"""
    classes = shape[-1]
    a, b, labels = rounded(*shape), rounded(*shape), some_labels(classes, *shape[:-1])
    valid = labels != IGNORED
    both = [F.cross_entropy(x[valid], labels[valid], label_smoothing=smoothing, reduction="sum") for x in (a, b)]
    p, q = F.log_softmax(a[valid], -1), F.log_softmax(b[valid], -1)
    kl = (F.kl_div(p, q.exp(), reduction="sum") + F.kl_div(q, p.exp(), reduction="sum")) / 2
    count = int(valid.sum())
    case("r_drop", (sum(both) / 2 + alpha * kl) / count, count, dict(r_drop=alpha, smoothing=smoothing), labels, first=a, second=b)


def distill(*shape, temperature=2.0, masked=True):
    student, teacher = rounded(*shape), rounded(*shape).detach()
    where = torch.rand(*shape[:-1]) < 0.7 if masked else torch.ones(*shape[:-1], dtype=torch.bool)
    where.view(-1)[0] = True
    s, t = F.log_softmax(student[where] / temperature, -1), F.softmax(teacher[where] / temperature, -1)
    count = int(where.sum())
    mean = F.kl_div(s, t, reduction="sum") * temperature ** 2 / count
    case("distill", mean, count, dict(temperature=temperature), where=where if masked else None, student=student, teacher=teacher)


def hidden(*shape):
    student, teacher = rounded(*shape), rounded(*shape).detach()
    where = torch.rand(*shape[:-1]) < 0.7
    where.view(-1)[0] = True
    count = int(where.sum())
    s, t = student[where], teacher[where]
    case("hidden_squares", F.mse_loss(s, t), count, where=where, student=student, teacher=teacher)
    case("hidden_cosine", F.cosine_embedding_loss(s, t, torch.ones(count)), count, where=where, student=student, teacher=teacher)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    k = 2 + arguments.seed % 4  # other seeds, other shapes
    cross_entropy(4, k + 1)
    cross_entropy(3, 4, k, smoothing=0.1)
    cross_entropy(5, k, weighted=True)
    cross_entropy(2, 5, k + 2, smoothing=0.25, weighted=True)
    cross_entropy(4, k, smoothing=0.1, scale=300.0)
    for gamma in (0.5, 1.0, 2.0, 5.0):
        focal(3, 3, k, gamma=gamma, weighted=gamma > 1)
    focal_binary(6, 2.0, -1)
    focal_binary(k + 3, 1.5, 0.25)
    r_drop(5, k, alpha=4.0)
    r_drop(2, 3, k, alpha=0.5, smoothing=0.1)
    distill(4, k + 1, temperature=1.0, masked=False)
    distill(2, 4, k, temperature=3.0)
    hidden(2, 4, k + 3)
    folder = os.path.join(arguments.out, "losses")
    os.makedirs(folder, exist_ok=True)
    manifest = dict(versions={m.__name__: m.__version__ for m in (torch, torchvision)}, seed=arguments.seed, ignored=IGNORED, cases=cases)
    with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)


main()
