"""Writes what scikit-learn computes for made-up predictions, for tests of package eval.

usage: python tools/golden/classification.py pkg/eval/testdata/golden/classification/cases.json
(needs: scikit-learn, numpy)

Calibration is not in scikit-learn: it is computed here from the definition, bin by bin.
"""
import json
import sys
import warnings

import numpy as np
import sklearn
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, precision_recall_fscore_support

BINS = 15


def ece(right, confidence):
    edges, total = np.linspace(0, 1, BINS + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


def case(name, labels, gold, predicted, confidence):
    scores = {}
    for average in ("macro", "weighted"):
        p, r, f, _ = precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)
        scores[average] = {"precision": p, "recall": r, "f1": f}
    p, r, f, s = precision_recall_fscore_support(gold, predicted, labels=range(len(labels)), zero_division=0)
    occur = sorted(set(gold) | set(predicted))
    report = classification_report(gold, predicted, labels=occur, target_names=[labels[i] for i in occur], digits=4, zero_division=0)
    return {
        "name": name, "labels": labels, "gold": list(map(int, gold)), "predicted": list(map(int, predicted)),
        "confidence": list(map(float, confidence)), "accuracy": accuracy_score(gold, predicted), **scores,
        "classes": [{"precision": p[i], "recall": r[i], "f1": f[i], "support": int(s[i])} for i in range(len(labels))],
        "confusion": confusion_matrix(gold, predicted, labels=range(len(labels))).tolist(),
        "ece": ece(np.array(gold) == np.array(predicted), np.array(confidence)),
        "report": "" if ".0\n" in report else report,  # where all is wrong, scikit-learn writes the supports as fractions
    }


def main():
    warnings.simplefilter("ignore")
    random = np.random.default_rng(7)
    cases = []
    for name, classes, items in (("balanced", 4, 200), ("many", 30, 120), ("binary", 2, 50)):
        gold = random.integers(0, classes, items)
        predicted = np.where(random.random(items) < 0.7, gold, random.integers(0, classes, items))
        cases.append(case(name, [f"class-{i}" for i in range(classes)], gold, predicted, 1 / classes + (1 - 1 / classes) * random.random(items)))
    cases.append(case("a class never predicted, one never there", ["a", "b", "c", "d"], [0, 0, 1, 1, 2], [0, 1, 1, 1, 0], [0.9, 0.8, 1.0, 0.4, 0.6]))
    cases.append(case("all right", ["yes", "no"], [0, 1, 1], [0, 1, 1], [1.0, 1.0, 1.0]))
    cases.append(case("all wrong", ["yes", "no"], [0, 0, 1], [1, 1, 0], [0.5, 0.75, 1.0]))
    with open(sys.argv[1], "w") as out:
        json.dump({"source": f"scikit-learn {sklearn.__version__}, numpy {np.__version__}", "cases": cases}, out)
        out.write("\n")


main()
