package cli

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/track/ui"
	"github.com/elastic-attention/workbench/pkg/viz"
)

type uiCmd struct {
	storeFlag
	Addr string   `help:"Address to listen at. Others than loopback can be reached by other machines." default:"127.0.0.1:7007"`
	Host []string `sep:"none" help:"Name by which browsers may ask, beside localhost. May be repeated." placeholder:"NAME"`
}

// Help is shown below the usage.
func (uiCmd) Help() string {
	return `Examples:
  elastic ui                     then open the address that it prints
  elastic ui --addr 127.0.0.1:0  at any free port

The address has a token, without which nobody is let in. Nothing is loaded from elsewhere, and nothing can be changed.`
}

// Run shows runs until it is stopped.
func (c uiCmd) Run(a *app) error {
	store, err := c.open(a)
	if err != nil {
		return err
	}
	defer store.Close()
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("listening at %s: %w", c.Addr, err)
	}
	token := rand.Text()
	host := listener.Addr().String()
	hosts := c.Host
	if name, _, err := net.SplitHostPort(c.Addr); err == nil && name != "" && !net.ParseIP(name).IsUnspecified() {
		hosts = append(hosts, name)
	}
	fmt.Fprintf(a.stdout, "http://%s/?token=%s\n", host, token)
	return (&ui.Server{Store: store, Token: token, Hosts: hosts, Learned: learned}).Serve(a.ctx, listener)
}

// learned draws what the heads of a run learned about themselves, as far as its report or its last checkpoint tells. It only
// reads, so that a run that goes on is left alone.
func learned(r track.Run) ([]viz.Chart, error) {
	if _, err := os.Stat(filepath.Join(r.Dir, run.ReportFile)); err == nil {
		course, err := run.ReadCourse(r.Dir)
		if err != nil {
			return nil, nil // a report of another kind
		}
		return scalarCharts(course.History), nil
	}
	checkpoints := checkpoint.Run{Dir: r.Dir}
	steps, err := checkpoints.Steps()
	if err != nil || len(steps) == 0 {
		return nil, err
	}
	state, err := train.ReadState(checkpoints.Path(slices.Max(steps)))
	if err != nil {
		return nil, nil // it has just been removed, or is damaged
	}
	return scalarCharts(state.History), nil
}
