//go:build unix

package nb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv turns the test binary into a cell: "polite" and "must" end when their context does, "stubborn" never.
const childEnv = "NB_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "polite":
		ctx := Context()
		EndInterrupted(context.Canceled) // of another context: nothing was interrupted
		fmt.Println("ready")
		<-ctx.Done()
		EndInterrupted(errors.New("some other failure"))
		EndInterrupted(nil)
		EndInterrupted(fmt.Errorf("training interrupted after update 7: %w", context.Cause(ctx)))
		fmt.Println("went on")
	case "must":
		ctx := Context()
		fmt.Println("ready")
		<-ctx.Done()
		Must(fmt.Errorf("training interrupted after update 7: %w", context.Cause(ctx)))
	case "stubborn":
		Context()
		fmt.Println("ready")
		select {}
	default:
		os.Exit(m.Run())
	}
}

func TestInterrupt(t *testing.T) {
	for _, test := range []struct {
		child      string
		interrupts int
		want       string
	}{
		{"polite", 1, "training interrupted after update 7: the cell was interrupted\n"},
		{"must", 1, "training interrupted after update 7: the cell was interrupted\n"},
		{"stubborn", 2, "interrupt it again to end it at once\n"},
	} {
		t.Run(test.child, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), os.Args[0])
			command.Env = append(os.Environ(), childEnv+"="+test.child)
			var stderr strings.Builder
			command.Stderr = &stderr
			out, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 64)
			if n, err := out.Read(line); err != nil || string(line[:n]) != "ready\n" {
				t.Fatalf("said %q, error %v", line[:n], err)
			}
			ended := make(chan error)
			go func() {
				rest, _ := out.Read(line)
				if rest > 0 {
					t.Errorf("went on after the interrupt: %q", line[:rest])
				}
				ended <- command.Wait()
			}()
			for i := 0; ; i++ {
				if i < test.interrupts || test.child == "stubborn" { // the first may not have been noticed yet
					if err := command.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
						t.Fatal(err)
					}
				}
				select {
				case err := <-ended:
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
						t.Errorf("ended with %v, want by the interrupt", err)
					}
					if !strings.HasSuffix(stderr.String(), test.want) {
						t.Errorf("last words %q, want %q", stderr.String(), test.want)
					}
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
}
