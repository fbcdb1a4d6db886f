package search

import (
	"maps"
	"math"
	"slices"
)

// Importance says how much each parameter decides whether a trial is good, as shares that add up to one: PED-ANOVA.
// For each parameter it compares its density among the best quarter of the trials that have it, p, with that among all
// of them, q, by their Pearson divergence:
//
//	importance ∝ Σ q·(p/q − 1)²
//
// over the values of a discrete parameter, or 50 cells of another. It is 0 where the best trials have the same values
// as all. It knows nothing of interactions, and says little of fewer than some twenty trials. Without four trials that
// have a value it is nil.
//
// Source: Watanabe, Bansal and Hutter 2023, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
// subspaces", IJCAI, with the best quarter in place of the best tenth.
func Importance(space Space, trials []Trial, maximize bool) map[string]float64 {
	if maximize {
		trials = slices.Clone(trials)
		for i, t := range trials {
			trials[i] = t.flipped()
		}
	}
	ranked, known := rank(trials, 4)
	if ranked = ranked[:known]; known < 4 {
		return nil
	}
	shares := map[string]float64{}
	sum := 0.0
	for _, p := range space {
		all := having([]Parameter{p}, ranked)
		if len(all) < 4 {
			shares[p.Name] = 0
			continue
		}
		among := newParzen([]Parameter{p}, all)
		top := newParzen([]Parameter{p}, all[:(len(all)+3)/4])
		values := gridValues(p)
		a, b := masses(top, p, values), masses(among, p, values)
		divergence := 0.0
		for i := range a {
			divergence += b[i] * (a[i]/b[i] - 1) * (a[i]/b[i] - 1)
		}
		shares[p.Name] = divergence
		sum += divergence
	}
	for name := range maps.Clone(shares) {
		if sum > 0 {
			shares[name] /= sum
		}
	}
	return shares
}

const importanceCells = 50

// gridValues are the values at which densities are compared.
func gridValues(p Parameter) []any {
	n := importanceCells
	if cells := p.cells(); cells > 0 && (cells < n || p.Kind == Categorical) {
		n = cells
	}
	var values []any
	for i := range n {
		if value := p.value((float64(i) + 0.5) / float64(n)); !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	return values
}

// masses returns the density at values as shares of their sum.
func masses(d parzen, p Parameter, values []any) []float64 {
	shares, sum := make([]float64, len(values)), 0.0
	for i, value := range values {
		shares[i] = math.Exp(d.log(Params{p.Name: value}))
		sum += shares[i]
	}
	for i := range shares {
		shares[i] /= sum
	}
	return shares
}
