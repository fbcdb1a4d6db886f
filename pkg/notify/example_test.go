package notify_test

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/notify"
)

func ExampleMessage() {
	m := notify.Message{Command: "train ner", Run: "runs/quick", Status: notify.Finished, Seconds: 723, Results: map[string]float64{"test/f1": 0.8312}}
	fmt.Println(m.Text())
	// Output: train ner finished after 12m3s: test/f1 0.8312 (runs/quick)
}
