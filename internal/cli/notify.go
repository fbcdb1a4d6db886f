package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/elastic-attention/workbench/pkg/notify"
	"github.com/elastic-attention/workbench/pkg/track"
)

// notifyFlag is a flag of commands that take long.
type notifyFlag struct {
	Notify []string `sep:"none" env:"ELASTIC_NOTIFY" help:"Tell when this ends, however it does: a URL, to which JSON is posted; bell; or a command for the shell. May be repeated." placeholder:"WHERE"`
}

func (f notifyFlag) targets() []string { return f.Notify }

// ending is what a command leaves for a notification.
type ending struct {
	run     string // folder or name
	results map[string]float64
}

// notifying runs a command and tells what became of it, if it has the flag. What goes wrong with that is told, and
// changes nothing else.
func (a *app) notifying(parsed *kong.Context) error {
	var targets []*notify.Target
	if node := parsed.Selected(); node != nil && node.Target.CanAddr() {
		if c, ok := node.Target.Addr().Interface().(interface{ targets() []string }); ok {
			for _, text := range c.targets() {
				to, err := notify.Parse(text)
				if err != nil {
					return usageError{fmt.Errorf("--notify: %w", err)}
				}
				targets = append(targets, to)
			}
		}
	}
	// The programs that this one starts are parts of it, and have nothing to tell.
	if err := os.Unsetenv("ELASTIC_NOTIFY"); err != nil {
		return err
	}
	if len(targets) == 0 {
		return parsed.Run(a)
	}
	begin := time.Now()
	tell := func(err error) {
		var usage usageError
		if errors.As(err, &usage) {
			return // nothing was begun
		}
		m := a.message(err)
		m.Command, m.Seconds = strings.Join(words(parsed), " "), time.Since(begin).Seconds()
		for _, to := range targets {
			if err := to.Send(context.WithoutCancel(a.ctx), m, a.stderr); err != nil {
				fmt.Fprintf(a.stderr, "elastic: %v\n", err)
			}
		}
	}
	defer func() {
		if r := recover(); r != nil {
			tell(fmt.Errorf("panic: %v", r))
			panic(r)
		}
	}()
	err := parsed.Run(a)
	tell(err)
	return err
}

// words are the names of the selected command, without arguments.
func words(parsed *kong.Context) []string {
	var names []string
	for _, step := range parsed.Path {
		if step.Command != nil {
			names = append(names, step.Command.Name)
		}
	}
	return names
}

// message says what became of a command.
func (a *app) message(err error) notify.Message {
	m := notify.Message{Run: a.ending.run, Results: a.ending.results, Status: notify.Finished}
	m.Host, _ = os.Hostname() // empty if the system does not tell
	switch {
	case err != nil && a.ctx.Err() != nil:
		m.Status = notify.Interrupted
	case err != nil:
		m.Status = notify.Failed
	}
	if err != nil && !errors.Is(err, errSilent) {
		m.Error = err.Error()
	}
	if m.Results == nil && m.Run != "" { // the scores of a training are in its folder
		if r, err := track.ReadRun(m.Run); err == nil {
			m.Results = map[string]float64{}
			for _, name := range track.Headlines(r) {
				for _, metric := range r.Metrics {
					if metric.Name == name {
						m.Results[name] = metric.Last
					}
				}
			}
		}
	}
	return m
}
