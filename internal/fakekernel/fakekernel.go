// Package fakekernel is a Jupyter kernel for tests: it speaks the protocol, and its language says what shall happen.
//
// A cell is lines of a command and its argument; lines that begin with % are left out:
//
//	print TEXT      a line on standard output
//	warn TEXT       a line on standard error
//	env NAME        a variable of the environment on standard output
//	show ID TEXT    a display with an ID; a second one with the same ID replaces the first
//	clear           clears the output
//	late N          N lines on standard output behind the reply, twenty a second
//	exit N          a program that exits with N: as with GoNB, the cell is ok and says so on standard error
//	error TEXT      the kernel refuses the cell
//	hang            goes on until it is interrupted
//	stubborn        goes on for ever
//	die             ends the kernel
package fakekernel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-zeromq/zmq4"

	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

// fileEnv names the connection file in the environment of a test binary that shall be a kernel.
const fileEnv = "FAKEKERNEL_CONNECTION"

// Main turns the test binary into the kernel if [Spec] has started it, and does not return then. TestMain calls it first.
func Main() {
	path := os.Getenv(fileEnv)
	if path == "" {
		return
	}
	at, err := kernel.ReadConnection(os.Args[1])
	if err == nil {
		err = Serve(context.Background(), at)
	}
	fmt.Fprintln(os.Stderr, "fakekernel:", err)
	os.Exit(1)
}

// Spec returns a kernelspec that starts the running test binary as kernel; see [Main].
func Spec() kernel.Spec {
	return kernel.Spec{Name: "fake", Argv: []string{os.Args[0], "{connection_file}"}, InterruptMode: "message", Env: map[string]string{fileEnv: "1"}}
}

// Install writes [Spec] as kernelspec with a name into a data folder of Jupyter.
func Install(dataDir, name string) error {
	dir := dataDir + "/kernels/" + name
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	content, err := json.Marshal(Spec())
	if err != nil {
		return err
	}
	return os.WriteFile(dir+"/kernel.json", content, 0o644)
}

type server struct {
	key         []byte
	iopub       zmq4.Socket
	publishing  sync.Mutex
	interrupted chan struct{}
	count       int
	late        int // lines that follow the reply
}

// Serve is the kernel until the context ends.
func Serve(ctx context.Context, at kernel.Connection) error {
	s := &server{key: []byte(at.Key), iopub: zmq4.NewPub(ctx), interrupted: make(chan struct{}, 1)}
	shell, control, heartbeat := zmq4.NewRouter(ctx), zmq4.NewRouter(ctx), zmq4.NewRep(ctx)
	for port, socket := range map[int]zmq4.Socket{at.IOPub: s.iopub, at.Shell: shell, at.Control: control, at.Heartbeat: heartbeat} {
		if err := socket.Listen(at.Address(port)); err != nil {
			return err
		}
		defer socket.Close()
	}
	go s.answer(control)
	go s.answer(shell)
	<-ctx.Done()
	return ctx.Err()
}

// answer answers the requests of a socket.
func (s *server) answer(socket zmq4.Socket) {
	for {
		raw, err := socket.Recv()
		if err != nil {
			return
		}
		request, err := kernel.Decode(raw.Frames, s.key)
		if err != nil {
			continue
		}
		reply := func(kind string, content any) {
			m, err := kernel.NewMessage("fake", kind, request.Header, content)
			if err == nil {
				m.Identities = request.Identities
				s.sendOn(socket, m)
			}
		}
		switch request.Header.Type {
		case "interrupt_request":
			select {
			case s.interrupted <- struct{}{}:
			default:
			}
			reply("interrupt_reply", map[string]string{"status": "ok"})
			continue
		case "shutdown_request":
			os.Exit(0)
		}
		s.publish(request, "status", map[string]string{"execution_state": "busy"})
		switch request.Header.Type {
		case "kernel_info_request":
			reply("kernel_info_reply", map[string]string{"status": "ok", "protocol_version": "5.3"})
		case "execute_request":
			reply("execute_reply", s.execute(request))
			for ; s.late > 0; s.late-- {
				time.Sleep(time.Second / 20)
				s.publish(request, "stream", map[string]string{"name": "stdout", "text": "late\n"})
			}
		case "complete_request", "inspect_request":
			var content struct {
				Code   string `json:"code"`
				Cursor int    `json:"cursor_pos"`
			}
			_ = json.Unmarshal(request.Content, &content)
			word, start := wordAt([]rune(content.Code), content.Cursor)
			if request.Header.Type == "complete_request" {
				reply("complete_reply", map[string]any{"status": "ok", "matches": matches(word), "cursor_start": start, "cursor_end": content.Cursor})
				break
			}
			found, data := slices.Contains(commands, word), map[string]any{}
			if found {
				data["text/markdown"] = "**" + word + "** is a command"
			}
			reply("inspect_reply", map[string]any{"status": "ok", "found": found, "data": data, "metadata": struct{}{}})
		}
		s.publish(request, "status", map[string]string{"execution_state": "idle"})
	}
}

// commands are what can be completed and inspected.
var commands = []string{"print", "warn", "env", "show", "clear", "late", "exit", "error", "hang", "stubborn", "die"}

// wordAt returns the word before the cursor and where it begins.
func wordAt(code []rune, cursor int) (string, int) {
	start := cursor
	for start > 0 && unicode.IsLetter(code[start-1]) {
		start--
	}
	return string(code[start:cursor]), start
}

func matches(word string) []string {
	found := []string{}
	for _, c := range commands {
		if strings.HasPrefix(c, word) {
			found = append(found, c)
		}
	}
	return found
}

func (s *server) sendOn(socket zmq4.Socket, m kernel.Message) {
	frames, err := m.Encode(s.key)
	if err != nil {
		return
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	_ = socket.SendMulti(zmq4.NewMsgFrom(frames...))
}

func (s *server) publish(request kernel.Message, kind string, content any) {
	m, err := kernel.NewMessage("fake", kind, request.Header, content)
	if err != nil {
		return
	}
	m.Identities = [][]byte{[]byte(kind)}
	s.sendOn(s.iopub, m)
}

func (s *server) execute(request kernel.Message) map[string]any {
	var content struct {
		Code   string `json:"code"`
		Silent bool   `json:"silent"`
	}
	_ = json.Unmarshal(request.Content, &content)
	if !content.Silent {
		s.count++
	}
	// An interrupt that came before its cell began, on a slow machine, still ends it; one of a cell that is over ends none.
	defer func() {
		select {
		case <-s.interrupted:
		default:
		}
	}()
	stream := func(name, text string) {
		s.publish(request, "stream", map[string]string{"name": name, "text": text + "\n"})
	}
	shown := map[string]bool{}
	for line := range strings.Lines(content.Code) {
		command, argument, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case command == "print":
			stream("stdout", argument)
		case command == "warn":
			stream("stderr", argument)
		case command == "env":
			stream("stdout", os.Getenv(argument))
		case command == "show":
			id, text, _ := strings.Cut(argument, " ")
			kind := map[bool]string{false: "display_data", true: "update_display_data"}[shown[id]]
			shown[id] = true
			s.publish(request, kind, map[string]any{"data": map[string]string{"text/plain": text}, "metadata": struct{}{}, "transient": map[string]string{"display_id": id}})
		case command == "clear":
			s.publish(request, "clear_output", map[string]bool{"wait": false})
		case command == "late":
			s.late, _ = strconv.Atoi(argument)
		case command == "exit":
			stream("stderr", "exit status "+argument)
		case command == "error":
			failure := map[string]any{"ename": "Refused", "evalue": argument, "traceback": []string{argument}}
			s.publish(request, "error", failure)
			failure["status"], failure["execution_count"] = "error", s.count
			return failure
		case command == "hang":
			<-s.interrupted
			stream("stderr", "signal: interrupt")
		case command == "stubborn":
			select {}
		case command == "die":
			os.Exit(1)
		case command == "" || strings.HasPrefix(command, "%"):
		default:
			stream("stderr", "unknown command "+strconv.Quote(command))
		}
	}
	return map[string]any{"status": "ok", "execution_count": s.count, "user_expressions": struct{}{}}
}
