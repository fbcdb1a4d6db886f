"""Writes pkg/elastic/interpret/testdata/heads.json: relevance, head importance, removal of heads
and attention flow of a small two-layer model, by torch (autograd, float64) and networkx.

    python tools/golden/interpret.py > pkg/elastic/interpret/testdata/heads.json
"""

import json
import sys

import networkx
import torch

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
BATCH, LENGTH, WIDTH, HEADS, LAYERS = 2, 5, 6, 2, 2
x = torch.randn(BATCH, LENGTH, WIDTH).float().double()
weights = [{n: (torch.randn(HEADS, WIDTH, WIDTH // HEADS) * 0.8).float().double() for n in "qkv"} for _ in range(LAYERS)]
readout = torch.randn(WIDTH).float().double()


def model(gates):
    """x ← x + tanh(heads joined), layer by layer; the target is what a readout sees at token 0."""
    h, maps = x, []
    for layer, w in enumerate(weights):
        q, k, v = (torch.einsum("blm,hmd->bhld", h, w[n]) for n in "qkv")
        a = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, -1).requires_grad_(True)
        a.retain_grad()
        maps.append(a)
        y = (a @ v) * gates[:, layer, :, None, None]
        h = h + torch.tanh(y.permute(0, 2, 1, 3).reshape(BATCH, LENGTH, WIDTH))
    return h[:, 0] @ readout, maps


gates = torch.ones(BATCH, LAYERS, HEADS, requires_grad=True)
target, maps = model(gates)
target.sum().backward()
relevance = torch.eye(LENGTH).expand(BATCH, LENGTH, LENGTH)
for a in maps:
    relevance = relevance + (a.grad * a).clamp(min=0).mean(1) @ relevance
# The loss of a row is its target squared.
gradient = gates.grad * 2 * target.detach()[:, None, None]
whole = (target.detach() ** 2).mean()
removal = torch.zeros(LAYERS, HEADS)
for layer in range(LAYERS):
    for head in range(HEADS):
        without = torch.ones(BATCH, LAYERS, HEADS)
        without[:, layer, head] = 0
        removal[layer, head] = (model(without)[0].detach() ** 2).mean() - whole

mixed = [(0.5 * a.detach().mean(1) + 0.5 * torch.eye(LENGTH))[0] for a in maps]
graph = networkx.DiGraph()
for layer, matrix in enumerate(mixed):
    for i in range(LENGTH):
        for j in range(LENGTH):
            graph.add_edge((layer + 1, i), (layer, j), capacity=float(matrix[i, j]))
flow = [[networkx.maximum_flow_value(graph, (LAYERS, i), (0, j)) for j in range(LENGTH)] for i in range(LENGTH)]

json.dump(
    {
        "source": f"torch {torch.__version__.split('+')[0]}, networkx {networkx.__version__}",
        "x": x.tolist(),
        "layers": [{n: w[n].tolist() for n in "qkv"} for w in weights],
        "readout": readout.tolist(),
        "target": target.tolist(),
        "relevance": relevance.tolist(),
        "importance": gradient.abs().mean(0).tolist(),
        "removal": removal.tolist(),
        "mixed": [m.tolist() for m in mixed],
        "flow": flow,
    },
    sys.stdout,
)
