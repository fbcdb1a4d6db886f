package optim_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// goldenRun is a run that another package made.
type goldenRun struct {
	ID      string           `json:"id"`
	Opt     string           `json:"opt"`
	Kw      map[string]any   `json:"kw"`
	Groups  []map[string]any `json:"groups"` // parts of Kw that differ for some parameters
	Problem string           `json:"problem"`
	Data    string           `json:"data"`
	Clip    *struct {
		Kind  string  `json:"kind"`
		Value float64 `json:"value"`
	} `json:"clip"`
	Wrap *struct {
		Name string         `json:"name"`
		Kw   map[string]any `json:"kw"`
	} `json:"wrap"`
	EMA       float64 `json:"ema"`
	Tx        any     `json:"tx"`
	Compare   string  `json:"compare"`
	Tolerance struct {
		RelToMax float64 `json:"rel_to_max"`
	} `json:"tol_f64"`
}

// replayed is what a run is in this package.
type replayed struct {
	config optim.Config
	rate   float64           // before groups and schedule
	loose  float64           // the other package computes a part in float32; 0 if it does not
	factor func(int) float64 // of the rate at an update, counted from 0
}

// options reads the options of a run. Those that nobody asked for are left over, so that an option
// which this package does not have cannot pass unseen.
type options struct {
	kw   map[string]any
	left map[string]bool
}

func optionsOf(kw map[string]any) *options {
	o := &options{kw: kw, left: map[string]bool{}}
	for name := range kw {
		o.left[name] = true
	}
	for _, how := range []string{"foreach", "fused"} { // these say how, not what, torch computes
		delete(o.left, how)
	}
	return o
}

func (o *options) number(name string, missing float64) float64 {
	delete(o.left, name)
	if x, ok := o.kw[name].(float64); ok {
		return x
	}
	return missing
}

func (o *options) flag(name string) bool {
	delete(o.left, name)
	return o.kw[name] == true
}

func (o *options) list(name string, missing ...float64) []float64 {
	delete(o.left, name)
	given, ok := o.kw[name].([]any)
	if !ok {
		return missing
	}
	numbers := make([]float64, len(given))
	for i, x := range given {
		numbers[i], _ = x.(float64)
	}
	return numbers
}

func (o *options) skip(names ...string) {
	for _, name := range names {
		delete(o.left, name)
	}
}

func (o *options) unknown() error {
	for name := range o.left {
		if value := o.kw[name]; value != nil && value != false {
			return fmt.Errorf("option %s=%v", name, value)
		}
	}
	return nil
}

// rule returns the rule of a run made with PyTorch or a package in its manner.
func torchRule(opt string, o *options) (optim.Rule, error) {
	decay := func(missing float64) float64 { return o.number("weight_decay", missing) }
	// coupled puts a rule after L2, decoupled before weight decay.
	coupled := func(r optim.Rule) optim.Rule { return optim.Chain{optim.L2{Weight: decay(0)}, r} }
	decoupled := func(r optim.Rule, missing float64) optim.Rule {
		return optim.Chain{r, optim.Decay{Weight: decay(missing)}}
	}
	betas := func(missing ...float64) []float64 { return o.list("betas", missing...) }
	switch opt {
	case "torch:SGD":
		return optim.SGD{Momentum: o.number("momentum", 0), Dampening: o.number("dampening", 0), Nesterov: o.flag("nesterov"), L2: decay(0)}, nil
	case "torch:Adam":
		b := betas(0.9, 0.999)
		return coupled(optim.Adam{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), AMSGrad: o.flag("amsgrad")}), nil
	case "torch:AdamW":
		b := betas(0.9, 0.999)
		return optim.AdamW{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), AMSGrad: o.flag("amsgrad"), WeightDecay: decay(0.01)}, nil
	case "torch:NAdam":
		b := betas(0.9, 0.999)
		r := optim.NAdam{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), MomentumDecay: o.number("momentum_decay", 0.004)}
		if o.flag("decoupled_weight_decay") {
			return decoupled(r, 0), nil
		}
		return coupled(r), nil
	case "torch:RAdam":
		b := betas(0.9, 0.999)
		r := optim.RAdam{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8)}
		if o.flag("decoupled_weight_decay") {
			return decoupled(r, 0), nil
		}
		return coupled(r), nil
	case "torch:Adamax":
		b := betas(0.9, 0.999)
		return coupled(optim.Adamax{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8)}), nil
	case "torch:RMSprop":
		return coupled(optim.RMSprop{Alpha: o.number("alpha", 0.99), Epsilon: o.number("eps", 1e-8), Centered: o.flag("centered"), Momentum: o.number("momentum", 0)}), nil
	case "torch:Adagrad":
		return coupled(optim.Adagrad{Epsilon: o.number("eps", 1e-10), Start: o.number("initial_accumulator_value", 0)}), nil
	case "torch:Adadelta":
		return coupled(optim.Adadelta{Rho: o.number("rho", 0.9), Epsilon: o.number("eps", 1e-6)}), nil
	case "torch:Rprop":
		eta, sizes := o.list("etas", 0.5, 1.2), o.list("step_sizes", 1e-6, 50)
		return optim.Rprop{Shrink: eta[0], Grow: eta[1], Min: sizes[0], Max: sizes[1]}, nil
	case "torch:Adafactor":
		eps := o.list("eps", 0, 1e-3)
		return optim.Adafactor{Epsilon1: eps[0], Epsilon2: eps[1], Limit: o.number("d", 1), BetaDecay: -o.number("beta2_decay", -0.8), WeightDecay: decay(0)}, nil
	case "po:Lion":
		b := betas(0.9, 0.99)
		return optim.Lion{Beta1: b[0], Beta2: b[1], WeightDecay: decay(0), Cautious: o.flag("cautious")}, nil
	case "po:AdEMAMix":
		b := betas(0.9, 0.999, 0.9999)
		r := optim.AdEMAMix{Beta1: b[0], Beta2: b[1], Beta3: b[2], Alpha: o.number("alpha", 5), Epsilon: o.number("eps", 1e-8), Warmup: int(o.number("t_alpha_beta3", 0))}
		if o.flag("weight_decouple") {
			return decoupled(r, 0), nil
		}
		return coupled(r), nil
	case "po:Adan":
		b := betas(0.98, 0.92, 0.99)
		r := optim.Adan{Beta1: b[0], Beta2: b[1], Beta3: b[2], Epsilon: o.number("eps", 1e-8)}
		if o.flag("weight_decouple") {
			return decoupled(r, 0), nil
		}
		if w := decay(0); w != 0 {
			return optim.Chain{r, optim.ProximalDecay{Weight: w}}, nil
		}
		return r, nil
	case "po:CAME":
		b := betas(0.9, 0.999, 0.9999)
		return optim.CAME{Beta1: b[0], Beta2: b[1], Beta3: b[2], Epsilon1: o.number("eps1", 1e-30), Epsilon2: o.number("eps2", 1e-16), Limit: o.number("clip_threshold", 1), WeightDecay: decay(0)}, nil
	case "po:LARS":
		return optim.LARS{Momentum: o.number("momentum", 0.9), Coefficient: o.number("trust_coefficient", 1e-3), Nesterov: o.flag("nesterov"), WeightDecay: decay(0)}, nil
	case "po:StableAdamW":
		b := betas(0.9, 0.99)
		o.skip("kahan_sum") // only for 16 bits
		return optim.StableAdamW{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), WeightDecay: decay(0.01)}, nil
	case "po:QHAdam":
		b, nu := betas(0.9, 0.999), o.list("nus", 1, 1)
		return coupled(optim.QHAdam{Beta1: b[0], Beta2: b[1], Nu1: nu[0], Nu2: nu[1], Epsilon: o.number("eps", 1e-8)}), nil
	case "po:ADOPT":
		b := betas(0.9, 0.9999)
		return coupled(optim.ADOPT{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-6)}), nil
	case "po:AdamP":
		b := betas(0.9, 0.999)
		return optim.AdamP{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), Delta: o.number("delta", 0.1), Ratio: o.number("wd_ratio", 0.1), WeightDecay: decay(0)}, nil
	case "po:Tiger":
		return optim.Signum{Beta: o.number("beta", 0.965), WeightDecay: decay(0.01)}, nil
	case "po:MARS":
		b := betas(0.95, 0.99)
		if !o.flag("optimize_1d") {
			return nil, fmt.Errorf("another rule for vectors")
		}
		o.skip("lr_1d")
		return decoupled(optim.MARS{Beta1: b[0], Beta2: b[1], Gamma: o.number("gamma", 0.025), Epsilon: o.number("eps", 1e-8)}, 0), nil
	case "po:Lamb":
		b := betas(0.9, 0.999)
		if !o.flag("weight_decouple") && o.kw["weight_decouple"] != nil {
			return nil, fmt.Errorf("decay within the ratio")
		}
		return optim.LAMB{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-6), WeightDecay: decay(0), PyTorchOptimizer: true}, nil
	case "po:Shampoo":
		r := optim.Shampoo{Epsilon: o.number("matrix_eps", 1e-6), Every: int(o.number("preconditioning_compute_steps", 1))}
		if o.flag("weight_decouple") {
			return decoupled(r, 0), nil
		}
		return coupled(r), nil
	case "po:SOAP":
		b := betas(0.95, 0.95)
		return optim.SOAP{
			Beta1: b[0], Beta2: b[1], BasisBeta: o.number("shampoo_beta", 0), Epsilon: o.number("eps", 1e-8), WeightDecay: decay(1e-2),
			Every: int(o.number("precondition_frequency", 10)), Limit: int(o.number("max_precondition_dim", 10000)),
		}, nil
	case "own:sgd_hd":
		return optim.Chain{optim.SGD{}, optim.Hypergradient{Beta: o.number("beta", 0), Multiplicative: o.flag("mult")}}, nil
	case "own:adam_hd":
		return optim.Chain{
			optim.Adam{Beta1: o.number("b1", 0.9), Beta2: o.number("b2", 0.999), Epsilon: o.number("eps", 1e-8)},
			optim.Hypergradient{Beta: o.number("beta", 0), Multiplicative: o.flag("mult")},
		}, nil
	case "schedulefree:AdamWScheduleFree":
		b := betas(0.9, 0.999)
		return optim.ScheduleFreeAdamW{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), WeightDecay: decay(0)}, nil
	case "schedulefree:RAdamScheduleFree":
		b := betas(0.9, 0.999)
		return optim.ScheduleFreeAdamW{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), WeightDecay: decay(0), Rectified: true}, nil
	case "schedulefree:SGDScheduleFree":
		return optim.ScheduleFreeSGD{Momentum: o.number("momentum", 0.9), WeightDecay: decay(0)}, nil
	case "prodigyopt:Prodigy":
		b := betas(0.9, 0.999)
		return optim.Prodigy{
			Beta1: b[0], Beta2: b[1], Beta3: o.number("beta3", 0), Epsilon: o.number("eps", 1e-8), D0: o.number("d0", 1e-6), Coefficient: o.number("d_coef", 1),
			BiasCorrection: o.flag("use_bias_correction"), Safeguard: o.flag("safeguard_warmup"), WeightDecay: decay(0),
		}, nil
	case "dadaptation:DAdaptAdam":
		b := betas(0.9, 0.999)
		o.skip("decouple") // without it the decay would be coupled
		return optim.DAdaptAdam{Beta1: b[0], Beta2: b[1], Epsilon: o.number("eps", 1e-8), D0: o.number("d0", 1e-6), BiasCorrection: o.flag("use_bias_correction"), WeightDecay: decay(0)}, nil
	case "dadaptation:DAdaptSGD":
		return optim.DAdaptSGD{Momentum: o.number("momentum", 0), D0: o.number("d0", 1e-6)}, nil
	case "dadaptation:DAdaptLion":
		b := betas(0.9, 0.99)
		return optim.DAdaptLion{Beta1: b[0], Beta2: b[1], D0: o.number("d0", 1e-6), WeightDecay: decay(0)}, nil
	}
	return nil, fmt.Errorf("rule %s", opt)
}

// torchRun takes a run apart that was made with PyTorch or in its manner.
func torchRun(run goldenRun) (replayed, error) {
	all := optionsOf(run.Kw)
	missing := map[string]float64{"prodigyopt:Prodigy": 1, "dadaptation:DAdaptAdam": 1, "dadaptation:DAdaptSGD": 1, "dadaptation:DAdaptLion": 1, "torch:Adadelta": 1}
	r := replayed{rate: all.number("lr", or(missing[run.Opt], 1e-3)), factor: func(int) float64 { return 1 }}
	rule, err := torchRule(run.Opt, all)
	if err != nil {
		return r, err
	}
	if run.Opt == "po:QHAdam" {
		r.loose = 1e-7 // the weights of the averages are in float32
	}
	if warmup := all.number("warmup_steps", 0); warmup > 0 { // of schedule-free
		r.factor = func(step int) float64 { return min(1, float64(step+1)/warmup) }
	}
	if err := all.unknown(); err != nil {
		return r, err
	}
	var chain optim.Chain
	if run.Clip != nil {
		switch run.Clip.Kind {
		case "global_norm":
			chain = append(chain, optim.ClipNorm{Limit: run.Clip.Value})
		case "value":
			chain = append(chain, optim.ClipValue{Limit: run.Clip.Value})
		default:
			return r, fmt.Errorf("clipping by %s", run.Clip.Kind)
		}
	}
	if run.Wrap != nil {
		o := optionsOf(run.Wrap.Kw)
		switch run.Wrap.Name {
		case "Lookahead":
			rule = optim.Chain{rule, optim.Lookahead{Every: int(o.number("k", 5)), Alpha: o.number("alpha", 0.5)}}
		case "SAM":
			adaptive := o.flag("adaptive")
			r.loose = 1e-6 // the norm of all gradients is in float32, and moves where the second gradient is taken
			chain = append(optim.Chain{optim.SAM{Rho: o.number("rho", 0.05), Adaptive: adaptive}}, chain...)
		default:
			return r, fmt.Errorf("wrapped in %s", run.Wrap.Name)
		}
		if err := o.unknown(); err != nil {
			return r, err
		}
	}
	chain = append(chain, rule)
	if run.EMA != 0 {
		chain = append(chain, optim.EMA{Beta: run.EMA})
	}
	r.config.Rule = chain
	for _, group := range run.Groups {
		g := optim.Group{}
		for name, value := range group {
			switch x, _ := value.(float64); name {
			case "params":
				for _, p := range value.([]any) {
					g.Variables = append(g.Variables, "/"+p.(string))
				}
			case "lr":
				g.Rate = x / r.rate
			case "weight_decay":
				g.WeightDecay = &x
			default:
				return r, fmt.Errorf("option %s of a group", name)
			}
		}
		r.config.Groups = append(r.config.Groups, g)
	}
	return r, nil
}

func or(x, missing float64) float64 {
	if x == 0 {
		return missing
	}
	return x
}

// optaxRun takes a run apart that was made with optax.
func optaxRun(run goldenRun) (replayed, error) {
	r := replayed{rate: 1, factor: func(int) float64 { return 1 }}
	if object, ok := run.Tx.(map[string]any); ok && object["multi"] != nil {
		multi, labels := object["multi"].(map[string]any), object["labels"].(map[string]any)
		members := map[string][]string{}
		for parameter, label := range labels {
			members[label.(string)] = append(members[label.(string)], "/"+parameter)
		}
		for label, tx := range multi {
			rule, rate, err := optaxRule(tx, &r)
			if err != nil {
				return r, err
			}
			r.config.Groups = append(r.config.Groups, optim.Group{Variables: members[label], Rule: rule, Rate: rate})
		}
		return r, nil
	}
	rule, rate, err := optaxRule(run.Tx, &r)
	r.config.Rule, r.rate = rule, rate
	return r, err
}

// optaxRule returns a rule and its learning rate.
func optaxRule(tx any, r *replayed) (optim.Rule, float64, error) {
	if object, ok := tx.(map[string]any); ok {
		links, ok := object["chain"].([]any)
		if !ok {
			return nil, 0, fmt.Errorf("a rule of another form")
		}
		var chain optim.Chain
		rate := 1.0
		for _, link := range links {
			rule, linkRate, err := optaxRule(link, r)
			if err != nil {
				return nil, 0, err
			}
			chain = append(chain, rule)
			rate *= linkRate
		}
		return chain, rate, nil
	}
	name := tx.([]any)[0].(string)
	o := optionsOf(tx.([]any)[1].(map[string]any))
	rate := o.number("learning_rate", 1)
	if object, ok := o.kw["learning_rate"].(map[string]any); ok {
		sched := object["$sched"].([]any)
		if sched[0] != "warmup_cosine_decay_schedule" {
			return nil, 0, fmt.Errorf("schedule %s", sched[0])
		}
		s := optionsOf(sched[1].(map[string]any))
		r.loose = 1e-7 // optax has schedules in float32
		start, peak, end := s.number("init_value", 0), s.number("peak_value", 0), s.number("end_value", 0)
		warmup, total := s.number("warmup_steps", 0), s.number("decay_steps", 0)
		r.factor = func(step int) float64 {
			t := float64(step)
			if t < warmup {
				return start + (peak-start)*t/warmup
			}
			return end + (peak-end)*(1+math.Cos(math.Pi*min(1, (t-warmup)/(total-warmup))))/2
		}
	}
	b1, b2 := func(missing float64) float64 { return o.number("b1", missing) }, func(missing float64) float64 { return o.number("b2", missing) }
	decay := o.number("weight_decay", 0)
	var rule optim.Rule
	switch name {
	case "sgd":
		rule = optim.SGD{Momentum: o.number("momentum", 0), Nesterov: o.flag("nesterov")}
	case "set_to_zero":
		rule = zero{}
	case "adam":
		rule = optim.Adam{Beta1: b1(0.9), Beta2: b2(0.999), Epsilon: o.number("eps", 1e-8), Nesterov: o.flag("nesterov")}
	case "adamw":
		if _, given := o.kw["weight_decay"]; !given {
			decay = 1e-4
		}
		o.skip("mask")
		rule = optim.AdamW{Beta1: b1(0.9), Beta2: b2(0.999), Epsilon: o.number("eps", 1e-8), Nesterov: o.flag("nesterov"), WeightDecay: decay}
	case "lion":
		o.skip("mask")
		rule = optim.Lion{Beta1: b1(0.9), Beta2: b2(0.99), WeightDecay: decay}
	case "adafactor":
		if o.number("min_dim_size_to_factor", 128) > 4 {
			return nil, 0, fmt.Errorf("matrices that are not factored")
		}
		rule = optim.Adafactor{BetaDecay: o.number("decay_rate", 0.8), Limit: o.number("clipping_threshold", 1), Epsilon1: o.number("eps", 1e-30), WeightDecay: o.number("weight_decay_rate", 0), Optax: true}
	case "lamb":
		o.skip("mask")
		rule = optim.LAMB{Beta1: b1(0.9), Beta2: b2(0.999), Epsilon: o.number("eps", 1e-6), WeightDecay: decay}
	case "lars":
		rule = optim.Chain{
			optim.L2{Weight: decay},
			optim.TrustRatio{Coefficient: o.number("trust_coefficient", 1e-3), Epsilon: o.number("eps", 0)},
			optim.Momentum{Beta: o.number("momentum", 0.9), Nesterov: o.flag("nesterov")},
		}
	case "adan":
		o.skip("mask")
		rule = optim.Chain{
			optim.Adan{Beta1: b1(0.98), Beta2: b2(0.92), Beta3: o.number("b3", 0.99), Epsilon: o.number("eps", 1e-8), OneMinus: true},
			optim.Decay{Weight: decay},
		}
	case "novograd":
		rule = optim.NovoGrad{Beta1: b1(0.9), Beta2: b2(0.25), Epsilon: o.number("eps", 1e-6), WeightDecay: decay}
	case "yogi":
		rule = optim.Yogi{Beta1: b1(0.9), Beta2: b2(0.999), Epsilon: o.number("eps", 1e-3)}
	case "adabelief":
		rule = optim.AdaBelief{Beta1: b1(0.9), Beta2: b2(0.999), Epsilon: o.number("eps", 1e-16)}
	case "sm3":
		rule = optim.SM3{Momentum: o.number("momentum", 0.9)}
	case "signum":
		rule = optim.Signum{Beta: o.number("beta", 0.9)}
	case "contrib.muon":
		rule = optim.Muon{
			Momentum: o.number("beta", 0.95), RMS: o.number("consistent_rms", 0), WeightDecay: decay,
			AdamRate: o.number("adam_learning_rate", rate) / rate, AdamDecay: o.number("adam_weight_decay", 0),
			Adam: optim.Adam{Beta1: o.number("adam_b1", 0.9), Beta2: o.number("adam_b2", 0.999), Nesterov: true},
		}
	case "contrib.prodigy":
		b := o.list("betas", 0.9, 0.999)
		rule = optim.Prodigy{Beta1: b[0], Beta2: b[1], Beta3: o.number("beta3", 0), D0: o.number("estim_lr0", 1e-6), Coefficient: o.number("estim_lr_coef", 1), BiasCorrection: true, Safeguard: o.flag("safeguard_warmup"), WeightDecay: decay}
	case "contrib.dadapt_adamw":
		b := o.list("betas", 0.9, 0.999)
		rule = optim.DAdaptAdam{Beta1: b[0], Beta2: b[1], D0: o.number("estim_lr0", 1e-6), BiasCorrection: true, WeightDecay: decay}
	case "contrib.dowg":
		rule = optim.DoWG{Start: o.number("init_estim_sq_dist", 0), Epsilon: o.number("eps", 1e-4)}
	case "contrib.mechanize":
		base, baseRate, err := optaxRule(o.kw["base_optimizer"].(map[string]any)["$opt"], r)
		if err != nil {
			return nil, 0, err
		}
		o.skip("base_optimizer")
		rate = baseRate
		rule = optim.Chain{base, optim.Mechanic{Start: o.number("s_init", 1e-6), Betas: int(o.number("num_betas", 6)), Decay: o.number("weight_decay", 1e-2)}}
	case "contrib.momo_adam":
		rule = optim.MoMo{Beta1: b1(0.9), Beta2: b2(0.999), Epsilon: o.number("eps", 1e-8), Bound: o.number("lower_bound", 0)}
		if decay != 0 {
			return nil, 0, fmt.Errorf("weight decay of momo")
		}
	case "contrib.cocob":
		rule = optim.COCOB{Alpha: o.number("alpha", 100), Epsilon: o.number("eps", 1e-8)}
	case "polyak_sgd":
		rate = o.number("max_learning_rate", 1)
		rule = optim.Polyak{Bound: o.number("f_min", 0)}
	case "lookahead":
		base, baseRate, err := optaxRule(o.kw["fast_optimizer"].(map[string]any)["$opt"], r)
		if err != nil {
			return nil, 0, err
		}
		o.skip("fast_optimizer")
		rate = baseRate
		rule = optim.Chain{base, optim.Lookahead{Every: int(o.number("sync_period", 5)), Alpha: o.number("slow_step_size", 0.5)}}
	case "adaptive_grad_clip":
		rule = optim.AGC{Limit: o.number("clipping", 0), Epsilon: o.number("eps", 1e-3)}
	case "clip_by_block_rms":
		rule = optim.ClipRMS{Limit: o.number("threshold", 0)}
	case "clip_by_global_norm":
		rule = optim.ClipNorm{Limit: o.number("max_norm", 0), Exact: true}
	case "centralize":
		rule = optim.Centralize{First: true}
	default:
		return nil, 0, fmt.Errorf("rule %s", name)
	}
	return rule, rate, o.unknown()
}

// zero makes no update.
type zero struct{}

func (zero) Kind() string                        { return "zero" }
func (zero) Validate() error                     { return nil }
func (zero) Slots(elastic.Variable) []optim.Slot { return nil }
func (zero) Apply(s *optim.Step) {
	for i, u := range s.Updates {
		s.Updates[i] = graph.ZerosLike(u)
	}
}

type goldenSet struct {
	file *safetensors.File
	runs []goldenRun
}

func load(t *testing.T) goldenSet {
	t.Helper()
	dir := golden.Dir(t, "optim")
	content, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Runs []goldenRun `json:"runs"`
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	file, err := safetensors.Open(filepath.Join(dir, "trajectories.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return goldenSet{file, manifest.Runs}
}

func (run goldenRun) replayed() (replayed, error) {
	if run.Tx != nil {
		return optaxRun(run)
	}
	return torchRun(run)
}

// gaps are the rules of other packages that this one does not have: a plateau is a controller here
// (TestGoldenSchedules), and L-BFGS searches along lines.
var gaps = []string{"rule contrib.reduce_on_plateau", "rule lbfgs"}

// TestGoldenOptim replays the trajectories of other packages from their gradients. Those for which
// this package has no means are listed with the reason.
func TestGoldenOptim(t *testing.T) {
	set := load(t)
	done := 0
	for _, run := range set.runs {
		r, err := run.replayed()
		twice := run.Wrap != nil && run.Wrap.Name == "SAM"
		if err == nil && twice {
			err = fmt.Errorf("gradients are taken twice: see TestGoldenOptimEndToEnd")
		}
		if err != nil {
			t.Logf("%s is not replayed: %v", run.ID, err)
			if !slices.Contains(gaps, err.Error()) && !twice && os.Getenv(golden.DirEnv) == "" {
				t.Errorf("%s is no known gap", run.ID)
			}
			continue
		}
		done++
		t.Run(run.ID, func(t *testing.T) { replay(t, set.file, run, r, false) })
	}
	t.Logf("%d of %d trajectories replayed from recorded gradients", done, len(set.runs))
	if done == 0 {
		t.Fatal("no trajectory")
	}
}

// trajectory is what was recorded of a run.
type trajectory struct {
	names     []string
	params    []elastic.Variable
	values    []recorded // [T+1, …]
	gradients []recorded // [T, …]
	losses    []float64
	rates     []float64
	averages  []recorded // [T, …] weights to evaluate with; nil if there are none
}

type recorded struct {
	data []float64
	dims []int // of one entry
}

func (r recorded) at(i int) *tensors.Tensor {
	size := 1
	for _, d := range r.dims {
		size *= d
	}
	return tensors.FromFlatDataAndDimensions(slices.Clone(r.data[i*size:(i+1)*size]), r.dims...)
}

func record(t *testing.T, file *safetensors.File, name string) recorded {
	t.Helper()
	value, err := file.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	dims := value.Shape().Dimensions
	return recorded{tensors.MustCopyFlatData[float64](value), dims[min(1, len(dims)):]}
}

func (run goldenRun) trajectory(t *testing.T, file *safetensors.File) trajectory {
	var tr trajectory
	for _, name := range file.Names() {
		short, ok := strings.CutPrefix(name, run.ID+"/p/")
		if !ok {
			continue
		}
		values := record(t, file, name)
		tr.names = append(tr.names, short)
		tr.params = append(tr.params, elastic.Variable{Path: "/" + short, Shape: values.dims, Decay: run.decays(short)})
		tr.values = append(tr.values, values)
		tr.gradients = append(tr.gradients, record(t, file, run.ID+"/g/"+short))
		for _, kind := range []string{"ema", "eval", "slow"} {
			if other := run.ID + "/" + kind + "/" + short; slices.Contains(file.Names(), other) {
				tr.averages = append(tr.averages, record(t, file, other))
				if kind != "eval" { // with those before the first update
					last := &tr.averages[len(tr.averages)-1]
					last.data = last.data[last.at(0).Size():]
				}
			}
		}
	}
	if len(tr.names) == 0 {
		t.Fatal("no parameters")
	}
	tr.losses = record(t, file, run.ID+"/loss").data
	if slices.Contains(file.Names(), run.ID+"/lr") {
		tr.rates = record(t, file, run.ID+"/lr").data
	}
	return tr
}

// decays reports whether a parameter has weight decay, which a mask may forbid.
func (run goldenRun) decays(parameter string) bool {
	if list, ok := run.Tx.([]any); ok {
		if mask, ok := list[1].(map[string]any)["mask"].(map[string]any); ok {
			return mask[parameter] == true
		}
	}
	return true
}

func replay(t *testing.T, file *safetensors.File, run goldenRun, r replayed, endToEnd bool) {
	tr := run.trajectory(t, file)
	o, err := optim.New(r.config, tr.params)
	if err != nil {
		t.Fatal(err)
	}
	n, slots := len(tr.params), o.Slots()
	problem := problemOf(t, file, run)
	exec, err := graph.NewExec(gxtest.Backend(t), func(in []*graph.Node) []*graph.Node {
		input := optim.Input{Number: in[0], Rate: in[1], Loss: in[2], Values: in[3 : 3+n], Gradients: in[3+n : 3+2*n], Slots: in[3+2*n : 3+2*n+len(slots)]}
		rows := in[3+2*n+len(slots):]
		if endToEnd {
			input.Loss, input.Gradients = problem.gradients(tr.names, input.Values, rows)
			if o.Perturbs() {
				_, input.Gradients = problem.gradients(tr.names, o.Perturb(input), rows)
			}
		}
		values, next, used := o.Update(input)
		out := append(slices.Concat(values, next), input.Loss, used)
		if o.Averages() {
			out = append(out, o.Average(optim.Input{Number: in[0], Values: values, Slots: next})...)
		}
		return out
	})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]any, n)
	for i := range values {
		values[i] = tr.values[i].at(0)
	}
	state := make([]any, len(slots))
	for i, s := range slots {
		if s.Copy {
			state[i] = tr.values[s.Of].at(0)
			continue
		}
		state[i] = tensors.FromFlatDataAndDimensions(slices.Repeat([]float64{s.Init.Value}, s.Size()), s.Shape...)
	}
	steps := len(tr.losses)
	first := r.rate
	if len(run.Groups) > 0 { // the recorded rate is that of the first group
		if lr, ok := run.Groups[0]["lr"].(float64); ok {
			first = lr
		}
	}
	hyper := strings.HasPrefix(run.Opt, "own:")
	tolerance := max(run.Tolerance.RelToMax, r.loose)
	worst, final := 0.0, 0.0
	for step := range steps {
		rate := r.rate * r.factor(step)
		if tr.rates != nil && !hyper {
			rate = r.rate * tr.rates[step] / first
		}
		args := []any{float64(step + 1), rate, tr.losses[step]}
		args = append(args, values...)
		for i := range tr.gradients {
			args = append(args, tr.gradients[i].at(step))
		}
		args = append(args, state...)
		if endToEnd {
			args = append(args, problem.rows(step)...)
		}
		out, err := exec.Call(args...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range values {
			values[i] = out[i]
		}
		for i := range state {
			state[i] = out[n+i]
		}
		final = tensors.ToScalar[float64](out[n+len(state)])
		if hyper {
			if used := tensors.ToScalar[float64](out[n+len(state)+1]); math.Abs(used-tr.rates[step]) > 1e-9*math.Abs(tr.rates[step]) {
				t.Fatalf("step %d: rate %g, want %g", step, used, tr.rates[step])
			}
		}
		if run.Compare == "loss" {
			continue
		}
		if endToEnd {
			if d := math.Abs(final - tr.losses[step]); d > 1e-7*math.Abs(tr.losses[0]) {
				t.Fatalf("step %d: loss %g, want %g", step, final, tr.losses[step])
			}
		}
		for i, name := range tr.names {
			worst = max(worst, compare(t, fmt.Sprintf("step %d: %s", step, name), out[i], tr.values[i], step+1, tolerance))
			if tr.averages != nil {
				compare(t, fmt.Sprintf("step %d: average of %s", step, name), out[n+len(state)+2+i], tr.averages[i], step, tolerance)
			}
		}
	}
	if run.Compare == "loss" && endToEnd {
		if want := tr.losses[steps-1]; math.Abs(final-want) > 0.1*math.Abs(want) {
			t.Fatalf("final loss %g, want %g within 10 %%", final, want)
		}
	}
	t.Logf("%d steps, largest deviation %.2g of %.2g", steps, worst, tolerance)
}

// compare returns the largest deviation from an entry, of the largest element of all entries.
func compare(t *testing.T, what string, got *tensors.Tensor, want recorded, entry int, tolerance float64) float64 {
	t.Helper()
	largest, worst := 0.0, 0.0
	for _, v := range want.data {
		largest = max(largest, math.Abs(v))
	}
	expected := tensors.MustCopyFlatData[float64](want.at(entry))
	for j, v := range tensors.MustCopyFlatData[float64](got) {
		deviation := math.Abs(v-expected[j]) / largest
		if !(deviation <= tolerance) {
			t.Fatalf("%s[%d] is %g, want %g: off by %.2g of the largest, tolerance %.2g", what, j, v, expected[j], deviation, tolerance)
		}
		worst = max(worst, deviation)
	}
	return worst
}

// problem is what a run minimises.
type problem struct {
	tensors map[string]recorded
	run     goldenRun
	dims    map[string][]int
}

func problemOf(t *testing.T, file *safetensors.File, run goldenRun) problem {
	p := problem{tensors: map[string]recorded{}, run: run, dims: map[string][]int{}}
	for _, name := range file.Names() {
		short, ok := strings.CutPrefix(name, "problem/")
		if !ok {
			continue
		}
		value, err := file.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		p.dims[short] = value.Shape().Dimensions
		data := recorded{dims: value.Shape().Dimensions}
		if value.DType() == dtypes.Int64 {
			for _, v := range tensors.MustCopyFlatData[int64](value) {
				data.data = append(data.data, float64(v))
			}
		} else {
			data.data = tensors.MustCopyFlatData[float64](value)
		}
		p.tensors[short] = data
	}
	return p
}

// parts lists the micro-batches of a run: the name of their indices and their weight in the loss.
func (p problem) parts() (names []string, weights []float64) {
	switch p.run.Data {
	case "batches8":
		return []string{"batches8"}, []float64{1}
	case "micro_mean_of_means", "micro_item_weighted":
		total := 0.0
		for k := range 3 {
			name := fmt.Sprintf("micro/%d", k)
			names = append(names, name)
			weights = append(weights, float64(p.dims[name][1]))
			total += weights[k]
		}
		for k := range weights {
			weights[k] /= total
			if p.run.Data == "micro_mean_of_means" {
				weights[k] = 1.0 / 3
			}
		}
	}
	return names, weights
}

// rows returns the rows of each micro-batch of a step.
func (p problem) rows(step int) []any {
	var rows []any
	names, _ := p.parts()
	for _, name := range names {
		width := p.dims[name][1]
		index := make([]int64, width)
		for i := range index {
			index[i] = int64(p.tensors[name].data[step*width+i])
		}
		rows = append(rows, index)
	}
	return rows
}

// gradients builds the loss and its gradients.
func (p problem) gradients(names []string, values, rows []*graph.Node) (loss *graph.Node, gradients []*graph.Node) {
	g := values[0].Graph()
	constant := func(name string) *graph.Node {
		return graph.Const(g, tensors.FromFlatDataAndDimensions(slices.Clone(p.tensors[name].data), p.dims[name]...))
	}
	of := func(name string) *graph.Node { return values[slices.Index(names, name)] }
	if p.run.Problem == "quad" {
		d := graph.Sub(of("x"), constant("quad/xstar"))
		loss = graph.MulScalar(graph.Dot(d, graph.Dot(constant("quad/H"), d).Product()).Product(), 0.5)
		return loss, graph.Gradient(loss, values...)
	}
	_, weights := p.parts()
	x, y := constant("logreg/xhat"), graph.ConvertDType(constant("logreg/y"), dtypes.Int64)
	mean := func(rows *graph.Node) *graph.Node {
		x, y := x, y
		if rows != nil {
			index := graph.InsertAxes(rows, -1)
			x, y = graph.Gather(x, index), graph.Gather(y, index)
		}
		logits := graph.Add(graph.Dot(graph.Mul(x, graph.ExpandLeftToRank(of("g"), 2)), of("W")).Product(), graph.ExpandLeftToRank(of("b"), 2))
		target := graph.OneHot(y, logits.Shape().Dimensions[1], logits.DType())
		return graph.Neg(graph.ReduceAllMean(graph.ReduceSum(graph.Mul(graph.LogSoftmax(logits, -1), target), -1)))
	}
	if len(weights) == 0 {
		loss = mean(nil)
	}
	for k, rows := range rows {
		part := graph.MulScalar(mean(rows), weights[k])
		if loss == nil {
			loss = part
		} else {
			loss = graph.Add(loss, part)
		}
	}
	return loss, graph.Gradient(loss, values...)
}

// TestGoldenOptimEndToEnd replays them with gradients of its own.
func TestGoldenOptimEndToEnd(t *testing.T) {
	set := load(t)
	done := 0
	for _, run := range set.runs {
		r, err := run.replayed()
		if err != nil {
			continue // TestGoldenOptim lists it
		}
		done++
		t.Run(run.ID, func(t *testing.T) { replay(t, set.file, run, r, true) })
	}
	t.Logf("%d of %d trajectories replayed end to end", done, len(set.runs))
	if done == 0 {
		t.Fatal("no trajectory")
	}
}
