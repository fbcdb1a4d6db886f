package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Options say how a kernel is started.
type Options struct {
	Dir string            // working folder
	Env map[string]string // variables on top of the spec's
	Log io.Writer         // what the kernel itself writes to its standard output and error; nil throws it away
}

// Kernel is a kernel that this process has started.
type Kernel struct {
	*Client
	command *exec.Cmd
	gone    chan struct{}
	temp    string
}

// startTime is how long a kernel may take to start. GoNB needs less than a second on a quiet machine.
const startTime = 60 * time.Second

// Start starts a kernel on the loopback interface and waits until it answers.
func Start(ctx context.Context, spec Spec, o Options) (*Kernel, error) {
	k, err := start(ctx, spec, o)
	if errors.Is(err, ErrDead) { // another process may have taken one of the ports in between
		k, err = start(ctx, spec, o)
	}
	if err != nil {
		return nil, fmt.Errorf("starting kernel %s: %w", spec.Name, err)
	}
	return k, nil
}

func start(ctx context.Context, spec Spec, o Options) (*Kernel, error) {
	temp, err := os.MkdirTemp("", "elastic-kernel-")
	if err != nil {
		return nil, err
	}
	k := &Kernel{gone: make(chan struct{}), temp: temp}
	at, err := NewConnection(spec.Name)
	if err != nil {
		k.clean()
		return nil, err
	}
	file, err := at.Write(temp)
	if err != nil {
		k.clean()
		return nil, err
	}
	argv := make([]string, len(spec.Argv))
	for i, arg := range spec.Argv {
		argv[i] = strings.ReplaceAll(strings.ReplaceAll(arg, "{connection_file}", file), "{resource_dir}", spec.Dir)
	}
	// Not CommandContext: a kernel is asked to end before it is killed.
	k.command = exec.Command(argv[0], argv[1:]...)
	k.command.Dir, k.command.Env, k.command.Stdout, k.command.Stderr = o.Dir, spec.Environ(o.Env), o.Log, o.Log
	ownGroup(k.command)
	if err := k.command.Start(); err != nil {
		k.clean()
		return nil, fmt.Errorf("%w; \"elastic doctor\" examines the kernel", err)
	}
	go func() {
		_ = k.command.Wait() // how it ended is in its log
		close(k.gone)
	}()
	soon, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("it does not answer after %v", startTime))
	defer cancel()
	if k.Client, err = connect(soon, at, k.gone); err != nil {
		k.Kill()
		k.clean()
		return nil, err
	}
	if spec.InterruptMode != "message" {
		k.signal = func() error { return interrupt(k.command) }
	}
	return k, nil
}

// Kill ends the kernel at once, and all programs of its cells: those are processes of their own, which would outlive it.
func (k *Kernel) Kill() {
	killGroup(k.command)
	<-k.gone
}

// Close asks the kernel to end, kills it if it does not, and removes what it left.
func (k *Kernel) Close() {
	select {
	case <-k.gone:
	default:
		if _, err := k.send(k.control, "shutdown_request", map[string]bool{"restart": false}); err == nil {
			select {
			case <-k.gone:
			case <-time.After(3 * time.Second):
			}
		}
	}
	k.Kill()
	k.Client.Close()
	k.clean()
}

func (k *Kernel) clean() { _ = os.RemoveAll(k.temp) }
