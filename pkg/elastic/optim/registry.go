package optim

import (
	"fmt"

	"github.com/elastic-attention/workbench/internal/kind"
)

var registry kind.Registry[Rule]

// Register makes a rule of a caller's own known, so that configs in JSON can name it. It fails if
// its kind is empty or taken.
func Register[R Rule]() error {
	if err := kind.Add[R](&registry); err != nil {
		return fmt.Errorf("optimizer rule: %w", err)
	}
	return nil
}

// Kinds lists the known kinds of rules, sorted.
func Kinds() []string { return registry.Kinds() }

func init() {
	for _, add := range []func() error{
		Register[Chain],
		Register[ClipNorm], Register[ClipValue], Register[ClipRMS], Register[AGC], Register[Centralize], Register[Cautious], Register[Noise],
		Register[Decay], Register[L2], Register[ProximalDecay],
		Register[SGD], Register[Momentum], Register[Mean], Register[SignOf], Register[Signum], Register[Lion],
		Register[Adam], Register[AdamW], Register[NAdam], Register[RAdam], Register[Adamax], Register[AdaBelief], Register[Yogi],
		Register[QHAdam], Register[ADOPT], Register[AdEMAMix], Register[Adan], Register[MARS], Register[AdamP], Register[StableAdamW],
		Register[RMSprop], Register[Adagrad], Register[Adadelta], Register[Rprop], Register[SM3], Register[NovoGrad],
		Register[Adafactor], Register[CAME], Register[TrustRatio], Register[LAMB], Register[LARS], Register[Muon], Register[Shampoo], Register[SOAP],
		Register[EMA], Register[SWA], Register[Lookahead], Register[ScheduleFree], Register[ScheduleFreeAdamW], Register[ScheduleFreeSGD], Register[SecondMoment],
		Register[SAM], Register[Prodigy], Register[DAdaptAdam], Register[DAdaptSGD], Register[DAdaptLion], Register[DoWG], Register[DoG],
		Register[Mechanic], Register[MoMo], Register[Polyak], Register[COCOB], Register[Hypergradient],
	} {
		if err := add(); err != nil {
			panic(err) // two rules of this package have one kind
		}
	}
}
