// Package notify tells somebody that something long has ended.
//
//	to, err := notify.Parse("https://hooks.example.org/…") // before it begins
//	…
//	err = to.Send(ctx, notify.Message{Command: "train ner", Status: notify.Finished, Seconds: 723}, os.Stderr)
//
// A failure to tell is an error of Send, and nothing more.
package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The statuses of a [Message].
const (
	Finished    = "finished"
	Failed      = "failed"
	Interrupted = "interrupted"
)

// Message is what is told.
type Message struct {
	// Command is what ended, without its flags: "train ner".
	Command string `json:"command"`
	// Run is the run's folder or another name.
	Run string `json:"run,omitempty"`
	// Status is one of those above, and Error why it is not Finished.
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// Results are its numbers. Those that are not finite are left out, since JSON has no word for them.
	Results map[string]float64 `json:"results,omitempty"`
	Host    string             `json:"host,omitempty"`
}

// Text is the message in a line.
func (m Message) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s after %s", m.Command, m.Status, time.Duration(m.Seconds*float64(time.Second)).Round(time.Second))
	for i, name := range slices.Sorted(maps.Keys(m.Results)) {
		separator := ", "
		if i == 0 {
			separator = ": "
		}
		fmt.Fprintf(&b, "%s%s %.4g", separator, name, m.Results[name])
	}
	if m.Error != "" {
		b.WriteString(": " + m.Error)
	}
	if m.Run != "" {
		fmt.Fprintf(&b, " (%s)", m.Run)
	}
	return b.String()
}

// content is the message as JSON. Its field "text" is what Slack and Mattermost show of a webhook's message.
func (m Message) content() ([]byte, error) {
	finite := map[string]float64{}
	for name, value := range m.Results {
		if !math.IsNaN(value) && !math.IsInf(value, 0) {
			finite[name] = value
		}
	}
	text := m.Text()
	m.Results = finite
	return json.Marshal(struct {
		Text string `json:"text"`
		Message
	}{text, m})
}

// Target is where a message goes; [Parse] makes one. The zero value is nowhere.
type Target struct {
	bell    bool
	url     *url.URL
	command string
	client  *http.Client
	wait    time.Duration // before another try
}

// Parse reads a target:
//
//	bell                   the terminal's
//	http://… or https://…  a webhook, to which the message is posted as JSON
//	anything else          a command for the shell. It gets the JSON on its standard input, and Text, Status and Run in
//	                       the environment, as NOTIFY_TEXT, NOTIFY_STATUS and NOTIFY_RUN
func Parse(text string) (*Target, error) {
	t := &Target{wait: time.Second, client: &http.Client{Timeout: 10 * time.Second, CheckRedirect: stillPosted}}
	switch text = strings.TrimSpace(text); {
	case text == "":
		return nil, errors.New("want a URL, bell or a command, not nothing")
	case text == "bell":
		t.bell = true
	case strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://"):
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return nil, errors.New("the URL to notify has no host or is malformed") // which may hold a secret
		}
		t.url = u
	default:
		t.command = text
	}
	return t, nil
}

// String names the target without what may be secret.
func (t *Target) String() string {
	switch {
	case t.bell:
		return "bell"
	case t.url != nil:
		return t.url.Host
	}
	return cmp.Or(t.command, "nobody")
}

// Limits of sending.
const (
	tries          = 3
	commandTimeout = 30 * time.Second
)

// Send tells the target. Bell is the terminal that rings. A webhook that cannot be reached, or has trouble of its own, is
// tried three times; a command may take half a minute. To tell nobody is an error.
func (t *Target) Send(ctx context.Context, m Message, bell io.Writer) error {
	content, err := m.content()
	if err != nil {
		return err
	}
	switch {
	case t.bell:
		_, err = io.WriteString(bell, "\a")
	case t.url != nil:
		for try := range tries {
			var again bool
			if again, err = t.post(ctx, content); err == nil || !again {
				break
			}
			if try < tries-1 {
				select {
				case <-time.After(t.wait):
				case <-ctx.Done():
				}
			}
		}
	case t.command == "":
		err = errors.New("the target is empty: make it by Parse")
	default:
		err = t.run(ctx, m, content)
	}
	if err != nil {
		return fmt.Errorf("notifying %s: %w", t, err)
	}
	return nil
}

// stillPosted stops at a redirect that makes a GET of the POST: what answers there has not got the message.
func stillPosted(request *http.Request, via []*http.Request) error {
	if request.Method != http.MethodPost || len(via) >= 10 {
		return http.ErrUseLastResponse
	}
	return nil
}

// post reports also whether another try may help.
func (t *Target) post(ctx context.Context, content []byte) (again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String(), bytes.NewReader(content))
	if err != nil {
		return false, errors.New("the URL is malformed")
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := t.client.Do(request)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err // the rest is the URL, which may be secret
		}
		return true, err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 == 2 {
		return false, nil
	}
	if answer.StatusCode/100 == 3 { // what it says holds the address, which may be secret
		return false, fmt.Errorf("it answers %s and leads elsewhere, where the message would not arrive: name the address to which it leads", answer.Status)
	}
	words, _ := io.ReadAll(io.LimitReader(answer.Body, 200))
	return answer.StatusCode >= 500, fmt.Errorf("it answers %s: %s", answer.Status, strings.TrimSpace(string(words)))
}

func (t *Target) run(ctx context.Context, m Message, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	shell, flag := "sh", "-c"
	if runtime.GOOS == "windows" {
		shell, flag = "cmd", "/C"
	}
	cmd := exec.CommandContext(ctx, shell, flag, t.command)
	cmd.Stdin = bytes.NewReader(content)
	cmd.Env = append(os.Environ(), "NOTIFY_TEXT="+m.Text(), "NOTIFY_STATUS="+m.Status, "NOTIFY_RUN="+m.Run)
	cmd.WaitDelay = time.Second // for what it leaves running
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("it did not end within %s", commandTimeout)
	case err != nil && len(out) > 0:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out[:min(len(out), 500)])))
	}
	return err
}
