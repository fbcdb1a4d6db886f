// Package kernel starts Jupyter kernels and talks to them, without Python: the messages of the Jupyter protocol over ZeroMQ.
//
//	spec, err := kernel.Find("gonb", kernel.DataDirs())
//	k, err := kernel.Start(ctx, spec, kernel.Options{Dir: "notebooks"})
//	defer k.Close()
//	reply, err := k.Execute(ctx, kernel.Request{Code: "%%\nfmt.Println(1)", Output: func(m kernel.Message) { ... }})
//
// [Install] makes the kernelspec of the Go kernel, [Examine] says what is wrong with it.
package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-zeromq/zmq4"
)

// Client is a connection to a running kernel. It is for one goroutine at a time.
type Client struct {
	session        string
	key            []byte
	shell, control zmq4.Socket
	iopub          zmq4.Socket
	messages       chan received
	stop           context.CancelFunc
	gone           <-chan struct{} // closed when the kernel's process has ended; nil if that is not known
	receivers      sync.WaitGroup
	signal         func() error // interrupts the kernel; nil does it by a message
	idleWait       time.Duration
}

type received struct {
	from    string // "shell", "control" or "iopub"
	message Message
}

// idleWait is how long after a reply, and after each output behind it, the next output or their end may take.
const idleWait = 10 * time.Second

// ErrDead is returned when the kernel's process has ended.
var ErrDead = errors.New("the kernel died")

// StoppedError is returned by [Client.Execute] when its context ended before the cell did.
type StoppedError struct {
	Cause error // of the context
	Stuck bool  // the cell went on although it was interrupted, so the kernel must be killed
}

// Error says whether the cell could be stopped.
func (e *StoppedError) Error() string {
	if e.Stuck {
		return fmt.Sprintf("%v, and the cell ignored the interrupt", e.Cause)
	}
	return fmt.Sprintf("%v; the cell was interrupted", e.Cause)
}

// Unwrap returns the cause.
func (e *StoppedError) Unwrap() error { return e.Cause }

// connect connects to the kernel that listens there and waits until it answers, as long as the context allows and it is not
// gone.
func connect(ctx context.Context, at Connection, gone <-chan struct{}) (*Client, error) {
	if at.Scheme != "" && at.Scheme != "hmac-sha256" {
		return nil, fmt.Errorf("connecting to a kernel: signature scheme %q, want hmac-sha256", at.Scheme)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{session: NewID(), key: []byte(at.Key), messages: make(chan received, 64), stop: stop, gone: gone, idleWait: idleWait}
	once := zmq4.WithDialerMaxRetries(0)
	c.shell = zmq4.NewDealer(life, once, zmq4.WithID(zmq4.SocketIdentity(c.session)))
	c.control = zmq4.NewDealer(life, once, zmq4.WithID(zmq4.SocketIdentity(c.session)))
	c.iopub = zmq4.NewSub(life, once)
	for _, socket := range []struct {
		name string
		zmq4.Socket
		port int
	}{{"iopub", c.iopub, at.IOPub}, {"shell", c.shell, at.Shell}, {"control", c.control, at.Control}} {
		if err := dial(ctx, socket, at.Address(socket.port), gone); err != nil {
			c.Close()
			return nil, fmt.Errorf("connecting to the kernel: %w", err)
		}
		if socket.name == "iopub" {
			if err := c.iopub.SetOption(zmq4.OptionSubscribe, ""); err != nil {
				c.Close()
				return nil, fmt.Errorf("subscribing to the kernel's outputs: %w", err)
			}
		}
		c.receivers.Go(func() { c.receive(life, socket.name, socket.Socket) })
	}
	if err := c.ready(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("waiting for the kernel: %w", err)
	}
	return c, nil
}

// dial tries until the kernel listens.
func dial(ctx context.Context, socket zmq4.Socket, address string, gone <-chan struct{}) error {
	for {
		err := socket.Dial(address)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-gone:
			return ErrDead
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// receive passes the messages of a socket on until it is closed.
func (c *Client) receive(life context.Context, from string, socket zmq4.Socket) {
	for {
		raw, err := socket.Recv()
		if err != nil { // closed, by us or by the kernel's end
			return
		}
		frames := raw.Frames
		message, err := Decode(frames, c.key)
		if err != nil { // not for us: whoever has no key can only waste our time
			continue
		}
		select {
		case c.messages <- received{from, message}:
		case <-life.Done():
			return
		}
	}
}

// ready asks until the kernel answers on the shell and its outputs arrive: what is published before the kernel knows of the
// subscription is lost.
func (c *Client) ready(ctx context.Context) error {
	answered, heard := false, false
	for {
		request, err := c.send(c.shell, "kernel_info_request", struct{}{})
		if err != nil {
			return err
		}
		again := time.After(200 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case m := <-c.messages:
				answered = answered || m.from == "shell" && m.message.Parent.ID != ""
				heard = heard || m.from == "iopub"
				if answered && heard && (m.message.Parent.ID == request || m.from == "iopub") {
					return nil
				}
			case <-again:
				waiting = false
			case <-c.gone:
				return ErrDead
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// send sends a request and returns its ID. The error is [ErrDead] if the kernel's process has ended.
func (c *Client) send(socket zmq4.Socket, kind string, content any) (string, error) {
	message, err := NewMessage(c.session, kind, Header{}, content)
	if err != nil {
		return "", err
	}
	frames, err := message.Encode(c.key)
	if err != nil {
		return "", err
	}
	if err := socket.SendMulti(zmq4.NewMsgFrom(frames...)); err != nil {
		select {
		case <-c.gone: // whether the socket knows that yet is chance
			return "", ErrDead
		default:
			return "", fmt.Errorf("sending a %s: %w", kind, err)
		}
	}
	return message.Header.ID, nil
}

// Request is code to execute.
type Request struct {
	Code   string
	Silent bool          // not counted as an execution
	Output func(Message) // receives what the cell publishes; nil throws it away
	Grace  time.Duration // how long an interrupted cell may take to end; 0 is 5 seconds
}

// Reply is the kernel's answer to [Client.Execute].
type Reply struct {
	Status    string   `json:"status"` // "ok", "error" or "aborted"
	Count     int      `json:"execution_count"`
	Name      string   `json:"ename"`
	Value     string   `json:"evalue"`
	Traceback []string `json:"traceback"`
}

// Execute runs code and waits for its end and all its outputs. If the context ends before, the cell is interrupted, and
// the error is a [*StoppedError]; what the cell published until then has been passed on. It is [ErrDead] if the kernel's
// process ends. A cell that fails is no error here: package nb/execute judges it by its outputs.
func (c *Client) Execute(ctx context.Context, r Request) (Reply, error) {
	id, err := c.send(c.shell, "execute_request", map[string]any{
		"code": r.Code, "silent": r.Silent, "store_history": !r.Silent, "user_expressions": struct{}{}, "allow_stdin": false, "stop_on_error": true,
	})
	if err != nil {
		return Reply{}, err
	}
	var reply Reply
	var stopped *StoppedError
	var patience <-chan time.Time // runs once something has to end soon
	done, replied, idle := ctx.Done(), false, false
	for !replied || !idle {
		select {
		case m := <-c.messages:
			if m.message.Parent.ID != id {
				continue
			}
			switch {
			case m.from == "shell":
				if err := json.Unmarshal(m.message.Content, &reply); err != nil {
					return reply, fmt.Errorf("reading the kernel's reply: %w", err)
				}
				replied = true
			case m.message.Header.Type == "status":
				var status struct {
					State string `json:"execution_state"`
				}
				_ = json.Unmarshal(m.message.Content, &status)
				idle = status.State == "idle"
			case m.from == "iopub" && r.Output != nil:
				r.Output(m.message)
			}
			if replied && stopped == nil { // outputs come by a way of their own, and may be many
				patience = time.After(c.idleWait)
			}
		case <-done:
			done = nil
			stopped = &StoppedError{Cause: context.Cause(ctx)}
			if err := c.Interrupt(); err != nil {
				stopped.Stuck = true
				return reply, stopped
			}
			grace := r.Grace
			if grace == 0 {
				grace = 5 * time.Second
			}
			patience = time.After(grace)
		case <-patience:
			if stopped == nil { // the kernel forgot to say that it is idle
				return reply, nil
			}
			stopped.Stuck = !replied
			return reply, stopped
		case <-c.gone:
			return reply, ErrDead
		}
	}
	if stopped != nil {
		return reply, stopped
	}
	return reply, nil
}

// ask sends a request and reads the kernel's answer to it into reply.
func (c *Client) ask(ctx context.Context, kind string, content, reply any) error {
	id, err := c.send(c.shell, kind, content)
	if err != nil {
		return err
	}
	for {
		select {
		case m := <-c.messages:
			if m.from != "shell" || m.message.Parent.ID != id {
				continue
			}
			if err := json.Unmarshal(m.message.Content, reply); err != nil {
				return fmt.Errorf("reading the kernel's answer to a %s: %w", kind, err)
			}
			return nil
		case <-c.gone:
			return ErrDead
		case <-ctx.Done():
			return fmt.Errorf("waiting for the kernel's answer to a %s: %w", kind, context.Cause(ctx))
		}
	}
}

// Completion is what could stand at a place in a cell.
type Completion struct {
	Status  string   `json:"status"`       // "ok" or "error"
	Matches []string `json:"matches"`      // each to replace the code from Start to End
	Start   int      `json:"cursor_start"` // in code points, as End
	End     int      `json:"cursor_end"`
}

// Complete asks what could stand at the cursor, which is a number of code points from the beginning of the code.
func (c *Client) Complete(ctx context.Context, code string, cursor int) (Completion, error) {
	var reply Completion
	err := c.ask(ctx, "complete_request", map[string]any{"code": code, "cursor_pos": cursor}, &reply)
	return reply, err
}

// Inspection says what a name in a cell is.
type Inspection struct {
	Status string         `json:"status"` // "ok" or "error"
	Found  bool           `json:"found"`
	Data   map[string]any `json:"data"` // by MIME type
}

// Text returns the inspection as markdown, or as plain text if there is none.
func (i Inspection) Text() string {
	for _, kind := range []string{"text/markdown", "text/plain"} {
		if text, ok := i.Data[kind].(string); ok {
			return text
		}
	}
	return ""
}

// Inspect asks what stands at the cursor, which is a number of code points from the beginning of the code.
func (c *Client) Inspect(ctx context.Context, code string, cursor int) (Inspection, error) {
	var reply Inspection
	err := c.ask(ctx, "inspect_request", map[string]any{"code": code, "cursor_pos": cursor, "detail_level": 0}, &reply)
	return reply, err
}

// Interrupt interrupts the running cell, by a message or by a signal as the kernel's spec says.
func (c *Client) Interrupt() error {
	if c.signal != nil {
		return c.signal()
	}
	_, err := c.send(c.control, "interrupt_request", struct{}{})
	return err
}

// Close closes the connection. The kernel goes on.
func (c *Client) Close() {
	c.stop()
	for _, socket := range []zmq4.Socket{c.shell, c.control, c.iopub} {
		_ = socket.Close() // the kernel may have gone first
	}
	c.receivers.Wait()
}
