package kernel

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Connection says where a kernel listens, and with which key messages are signed. Jupyter hands it over as a file.
type Connection struct {
	Transport string `json:"transport"`
	IP        string `json:"ip"`
	Shell     int    `json:"shell_port"`
	IOPub     int    `json:"iopub_port"`
	Stdin     int    `json:"stdin_port"`
	Control   int    `json:"control_port"`
	Heartbeat int    `json:"hb_port"`
	Scheme    string `json:"signature_scheme"`
	Key       string `json:"key"`
	Kernel    string `json:"kernel_name"`
}

// NewConnection returns a connection over five free ports of the loopback interface, with a random key.
func NewConnection(name string) (Connection, error) {
	c := Connection{Transport: "tcp", IP: "127.0.0.1", Scheme: "hmac-sha256", Key: rand.Text(), Kernel: name}
	// All are held until all are known, so that they differ.
	for _, port := range []*int{&c.Shell, &c.IOPub, &c.Stdin, &c.Control, &c.Heartbeat} {
		listener, err := net.Listen("tcp", net.JoinHostPort(c.IP, "0"))
		if err != nil {
			return c, fmt.Errorf("finding a free port for the kernel: %w", err)
		}
		defer listener.Close()
		*port = listener.Addr().(*net.TCPAddr).Port
	}
	return c, nil
}

// ReadConnection reads a connection file.
func ReadConnection(path string) (Connection, error) {
	var c Connection
	content, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(content, &c)
	}
	if err != nil {
		return c, fmt.Errorf("reading connection file %s: %w", path, err)
	}
	return c, nil
}

// Write writes the connection to a file in a folder, readable by its owner only, and returns the file's path. Kernels
// take their identity from its name.
func (c Connection) Write(dir string) (string, error) {
	path := filepath.Join(dir, "kernel-"+NewID()+".json")
	content, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("writing a connection file: %w", err)
	}
	return path, nil
}

// Address returns the address of one of the ports.
func (c Connection) Address(port int) string {
	return fmt.Sprintf("%s://%s:%d", c.Transport, c.IP, port)
}
