package loss_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"label_smoothing": 1}`:                         "loss.label_smoothing is 1, want 0 ≤ ε < 1",
		`{"focal_gamma": -1}`:                            "loss.focal_gamma is -1, want 0 or more",
		`{"label_smoothing": 0.1, "focal_gamma": 2}`:     "label_smoothing and focal_gamma exclude each other",
		`{"class_weights": {"B": 1, "A": -2}}`:           `loss.class_weights["A"] is -2`,
		`{"class_weights": {"A": 2}, "balanced": true}`:  "balanced and class_weights exclude each other",
		`{"r_drop": -1}`:                                 "loss.r_drop is -1",
		`{"mixup": -0.5}`:                                "loss.mixup is -0.5",
		`{"penalties": [{"l1": 1}]}`:                     "loss.penalties[0].variables is empty",
		`{"penalties": [{"variables": ["*"]}]}`:          "loss.penalties[0] costs nothing",
		`{"penalties": [{"variables": ["*"], "l2":-1}]}`: "loss.penalties[0].l2 is -1",
		`{"smoothing": 0.1}`:                             `unknown field "smoothing"`,
		`{"class_weights": [1, 2]}`:                      "class_weights is a JSON array, want an object",
	} {
		var config loss.Config
		err := strictjson.Decode([]byte(text), &config)
		if err == nil {
			err = config.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

func TestConfigSurvivesJSON(t *testing.T) {
	config := loss.Config{
		LabelSmoothing: 0.1, ClassWeights: map[string]float64{"O": 0.2, "B-PER": 3}, RDrop: 4, Mixup: 0.2,
		Penalties: []loss.Penalty{{Variables: []string{"/head/*"}, L1: 1e-5, L2: 1e-4}},
	}
	content, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var again loss.Config
	if err := strictjson.Decode(content, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config, again); diff != "" {
		t.Error(diff)
	}
	if config.IsZero() || !(loss.Config{}).IsZero() {
		t.Error("IsZero does not tell the plain loss from others")
	}
	for _, one := range []loss.Config{
		{LabelSmoothing: 0.1}, {FocalGamma: 1}, {ClassWeights: map[string]float64{"a": 2}}, {Balanced: true}, {RDrop: 1}, {Mixup: 1},
		{Penalties: []loss.Penalty{{Variables: []string{"*"}, L1: 1}}},
	} {
		if one.IsZero() {
			t.Errorf("%+v is taken for the plain loss", one)
		}
	}
}

func TestClassWeights(t *testing.T) {
	names := []string{"O", "B-LOC", "I-LOC"}
	criterion, err := loss.Config{ClassWeights: map[string]float64{"O": 0.25}}.Criterion(names, nil)
	if err != nil || !slices.Equal(criterion.Weights, []float64{0.25, 1, 1}) {
		t.Errorf("weights %v (%v), want those named and else 1", criterion.Weights, err)
	}
	// scikit-learn: compute_class_weight("balanced", classes=[0, 1], y=[0]*6 + [1]*2) is 8/(2·6), 8/(2·2).
	criterion, err = loss.Config{Balanced: true}.Criterion(names, []int{6, 2, 0})
	if err != nil || !slices.Equal(criterion.Weights, []float64{8. / 12, 8. / 4, 1}) {
		t.Errorf("balanced weights are %v (%v), want 2/3, 2, and 1 for a class without targets", criterion.Weights, err)
	}
	if _, err := (loss.Config{Balanced: true}).Criterion(names, nil); err == nil {
		t.Error("balanced weights without counts were accepted")
	}
	if _, err := (loss.Config{ClassWeights: map[string]float64{"a": 0, "b": 0}}).Criterion([]string{"a", "b"}, nil); err == nil || !strings.Contains(err.Error(), "0 for all classes") {
		t.Errorf("error %v, want one about weights that are all 0", err)
	}
	_, err = loss.Config{ClassWeights: map[string]float64{"B-PER": 2}}.Criterion(names, nil)
	if err == nil || !strings.Contains(err.Error(), `"B-PER" is no class of the task; classes: ["O" "B-LOC" "I-LOC"]`) {
		t.Errorf("error %v, want one that lists the classes", err)
	}
}

func TestPenalties(t *testing.T) {
	variables := []elastic.Variable{
		{Path: "/a/weights", Shape: []int{3}, Init: elastic.Init{Values: []float64{1.5, -2, 0}}},
		{Path: "/a/bias", Shape: []int{1}, Init: elastic.Init{Value: 7}},
		{Path: "/b/weights", Shape: []int{2}, Init: elastic.Init{Values: []float64{-0.5, 3}}},
	}
	config := loss.Config{Penalties: []loss.Penalty{
		{Variables: []string{"*/weights"}, L1: 0.1}, {Variables: []string{"/b/*"}, L1: 0.5, L2: 0.2},
	}}
	if err := config.Check(variables); err != nil {
		t.Fatal(err)
	}
	store, err := elastic.NewStore(variables, 1)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := model.NewExec(gxtest.Backend(t), store, func(scope *model.Scope, x *Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		total := config.Penalty(w, variables)
		var by []*Node
		for _, v := range variables {
			by = append(by, store.GetVariable(v.Path).NodeValue(x.Graph()))
		}
		gradients := Gradient(Add(total, MulScalar(ReduceAllSum(by[1]), 0)), by...)
		return append([]*Node{total, OneMinus(x)}, gradients...)
	})
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := exec.CallWithGraph(float32(0))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, float64(tensors.ToScalar[float32](out[0])), 0.1*(1.5+2+0.5+3)+0.5*3.5+0.1*(0.25+9), 1e-6)
	gxtest.Close(t, out[2], []float32{0.1, -0.1, 0}, 1e-7)
	gxtest.Close(t, out[3], []float32{0}, 0)
	gxtest.Close(t, out[4], []float32{-0.6 - 0.1, 0.6 + 0.6}, 1e-6)

	config.Penalties[1].Variables = []string{"/c/*"}
	if err := config.Check(variables); err == nil || !strings.Contains(err.Error(), `loss.penalties[1].variables: pattern "/c/*"`) {
		t.Errorf("error %v, want one that names the pattern", err)
	}
	if (loss.Config{}).Penalty(elastic.Weights{}, variables) != nil {
		t.Error("no penalties cost something")
	}
}

func ExampleConfig() {
	var config loss.Config
	text := `{"label_smoothing": 0.1, "class_weights": {"O": 0.5}, "penalties": [{"variables": ["/head/*"], "l2": 0.01}]}`
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		panic(err)
	}
	criterion, err := config.Criterion([]string{"O", "B-LOC"}, nil)
	fmt.Println(criterion.Weights, criterion.Smoothing, err)

	config.FocalGamma, config.Mixup = 2, -1
	fmt.Println(config.Validate())
	// Output:
	// [0.5 1] 0.1 <nil>
	// loss.mixup is -1, want 0 or more, and finite
	// loss.label_smoothing and focal_gamma exclude each other: one keeps targets that are predicted well in the loss, the other takes them out
}

func ExampleBalance() {
	for _, w := range loss.Balance([]int{90, 9, 1}) {
		fmt.Printf("%.3f ", math.Round(w*1000)/1000)
	}
	// Output: 0.370 3.704 33.333
}
