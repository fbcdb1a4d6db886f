"""Writes what scipy and statsmodels compute for made-up outcomes, for tests of package eval.

usage: python tools/golden/bootstrap.py pkg/eval/testdata/golden/bootstrap/cases.json
(needs: scipy, statsmodels, numpy)

scipy.stats.bootstrap serves for one seed: pairs of systems resampled over examples, percentile
method. It has no second stage, so the intervals of several seeds are computed here from the
definition, with numpy.
"""
import json
import sys

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.multitest import multipletests

RESAMPLES = 40000


def f1(tp, fp, fn):
    tp, wrong = np.sum(tp, axis=-1), np.sum(fp, axis=-1) + np.sum(fn, axis=-1)
    return np.where(tp == 0, 0.0, 2 * tp / np.maximum(2 * tp + wrong, 1))


def outcomes(rng, examples, skill):
    """A system on examples with 0 to 3 entities each."""
    gold = np.random.default_rng(7).integers(0, 4, examples)
    tp = rng.binomial(gold, skill)
    return {"tp": tp, "fp": rng.poisson(0.3, examples), "fn": gold - tp}


def arrays(system):
    return system["tp"], system["fp"], system["fn"]


def one_seed(name, rng, a, b):
    def difference(*x, axis=-1):
        return f1(*x[3:]) - f1(*x[:3])

    result = stats.bootstrap(arrays(a) + arrays(b), difference, paired=True, vectorized=True, n_resamples=RESAMPLES, method="percentile", rng=rng, batch=1000)
    return case(name, [a], [b], result.confidence_interval.low, result.confidence_interval.high)


def several_seeds(name, rng, a, b):
    seeds, n = len(a), len(a[0]["tp"])
    A, B = (np.stack([np.stack(arrays(s)) for s in system]) for system in (a, b))  # [seeds, 3, n]
    drawn = []
    for _ in range(RESAMPLES):
        i, s = rng.integers(0, n, n), rng.integers(0, seeds, seeds)
        x, y = A[s][:, :, i], B[s][:, :, i]
        drawn.append(np.mean(f1(*y.transpose(1, 0, 2)) - f1(*x.transpose(1, 0, 2))))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return case(name, a, b, low, high)


def case(name, a, b, low, high):
    differences = np.array([f1(*arrays(y)) - f1(*arrays(x)) for x, y in zip(a, b)])
    effect = differences.mean() / differences.std(ddof=1) if len(differences) > 1 else 0.0
    plain = lambda systems: [{k: v.tolist() for k, v in s.items()} for s in systems]
    return {
        "name": name, "from": plain(a), "to": plain(b), "difference": float(differences.mean()), "low": float(low), "high": float(high),
        "effect": float(effect), "least": float(differences.min()),
    }


def main():
    rng = np.random.default_rng(11)
    cases = [
        one_seed("one seed, better", rng, outcomes(rng, 120, 0.6), outcomes(rng, 120, 0.75)),
        one_seed("one seed, no difference", rng, outcomes(rng, 120, 0.6), outcomes(rng, 120, 0.6)),
        several_seeds("five seeds", rng, [outcomes(rng, 80, 0.6) for _ in range(5)], [outcomes(rng, 80, 0.64 + 0.02 * s) for s in range(5)]),
    ]
    p = [0.012, 0.2, 0.003, 0.04, 0.9, 0.012, 0.6]
    holm = multipletests(p, method="holm")[1].tolist()
    program = f"scipy {scipy.__version__}, statsmodels {statsmodels.__version__}, numpy {np.__version__}"
    with open(sys.argv[1], "w") as out:
        json.dump({"source": "tools/golden/bootstrap.py: " + program, "resamples": RESAMPLES, "cases": cases, "p": p, "holm": holm}, out)
        out.write("\n")


main()
