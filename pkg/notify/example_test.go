package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/elastic-attention/workbench/pkg/notify"
)

func ExampleParse() {
	ctx := context.Background()
	m := notify.Message{Command: "train ner", Run: "runs/quick", Status: notify.Failed, Error: "out of memory", Seconds: 3}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var posted struct{ Text, Status string }
		if err := json.NewDecoder(r.Body).Decode(&posted); err == nil {
			fmt.Println("webhook:", posted.Status, "-", posted.Text)
		}
	}))
	defer hook.Close()
	for _, text := range []string{"bell", hook.URL} { // as users give it, before something long begins
		to, err := notify.Parse(text)
		if err != nil {
			panic(err)
		}
		var terminal bytes.Buffer
		if err := to.Send(ctx, m, &terminal); err != nil {
			panic(err)
		}
		fmt.Printf("terminal: %q\n", terminal.String())
	}
	_, err := notify.Parse("")
	fmt.Println(err)
	// Output:
	// terminal: "\a"
	// webhook: failed - train ner failed after 3s: out of memory (runs/quick)
	// terminal: ""
	// want a URL, bell or a command, not nothing
}

func ExampleMessage() {
	m := notify.Message{Command: "train ner", Run: "runs/quick", Status: notify.Finished, Seconds: 723, Results: map[string]float64{"test/f1": 0.8312}}
	fmt.Println(m.Text())
	// Output: train ner finished after 12m3s: test/f1 0.8312 (runs/quick)
}
