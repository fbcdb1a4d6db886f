package cli

import (
	"crypto/rand"
	"fmt"
	"net"

	"github.com/elastic-attention/workbench/pkg/track/ui"
)

type uiCmd struct {
	storeFlag
	Addr string   `help:"Address to listen at. Others than loopback can be reached by other machines." default:"127.0.0.1:7007" placeholder:"HOST:PORT"`
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
	return (&ui.Server{Store: store, Token: token, Hosts: hosts}).Serve(a.ctx, listener)
}
