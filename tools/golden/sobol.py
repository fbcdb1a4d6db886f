"""Writes some points of the Sobol sequence by scipy, as whole numbers of 2^-30, for tests of package search.

usage: python tools/golden/sobol.py pkg/study/search/testdata/sobol.json
(needs: scipy)
"""
import json
import sys

import scipy
from scipy.stats import qmc
INDEX = [1, 2, 3, 5, 8, 13, 21, 34, 55, 63]
points = qmc.Sobol(21, scramble=False, bits=30).random(64)
rows = [[int(round(float(v) * 2**30)) for v in p] for p in points[INDEX]]
json.dump({"source": f"scipy {scipy.__version__}, scipy.stats.qmc.Sobol(21, scramble=False, bits=30)", "bits": 30,
           "index": INDEX, "points": rows}, open(sys.argv[1], "w"))
