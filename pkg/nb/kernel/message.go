package kernel

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Header tells who sent a message, and what kind it is.
type Header struct {
	ID       string `json:"msg_id"`
	Session  string `json:"session"`
	Username string `json:"username"`
	Date     string `json:"date"`
	Type     string `json:"msg_type"`
	Version  string `json:"version"`
}

// Message is a message of the Jupyter protocol, version 5.
//
// Source: "Messaging in Jupyter", jupyter-client.readthedocs.io/en/stable/messaging.html.
type Message struct {
	Identities [][]byte // routing prefix
	Header     Header
	Parent     Header // of the request that this answers; empty if there is none
	Metadata   map[string]any
	Content    json.RawMessage
}

// delimiter ends the routing prefix.
var delimiter = []byte("<IDS|MSG>")

// NewID returns a random identifier in the form of a UUID.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// NewMessage returns a message of a session. Content must be marshalable.
func NewMessage(session, kind string, parent Header, content any) (Message, error) {
	raw, err := json.Marshal(content)
	if err != nil {
		return Message{}, fmt.Errorf("encoding a %s: %w", kind, err)
	}
	return Message{
		Header: Header{ID: NewID(), Session: session, Username: "elastic", Date: time.Now().UTC().Format(time.RFC3339Nano), Type: kind, Version: "5.3"},
		Parent: parent, Content: raw,
	}, nil
}

// Encode returns the frames of the message, signed with a key; an empty key leaves it unsigned.
func (m Message) Encode(key []byte) ([][]byte, error) {
	parts := make([][]byte, 4)
	var err error
	if parts[0], err = json.Marshal(m.Header); err != nil {
		return nil, err
	}
	parts[1] = []byte("{}")
	if m.Parent.ID != "" {
		if parts[1], err = json.Marshal(m.Parent); err != nil {
			return nil, err
		}
	}
	parts[2] = []byte("{}")
	if m.Metadata != nil {
		if parts[2], err = json.Marshal(m.Metadata); err != nil {
			return nil, err
		}
	}
	parts[3] = m.Content
	frames := append([][]byte{}, m.Identities...)
	return append(append(frames, delimiter, sign(key, parts)), parts...), nil
}

// Decode reads the frames of a message and verifies its signature.
func Decode(frames [][]byte, key []byte) (Message, error) {
	at := -1
	for i, frame := range frames {
		if bytes.Equal(frame, delimiter) {
			at = i
			break
		}
	}
	if at < 0 || len(frames) < at+6 {
		return Message{}, fmt.Errorf("%d frames are no message of the Jupyter protocol", len(frames))
	}
	parts := frames[at+2 : at+6]
	if !hmac.Equal(frames[at+1], sign(key, parts)) {
		return Message{}, errors.New("a message has a wrong signature")
	}
	m := Message{Identities: frames[:at], Content: parts[3]}
	for i, into := range []any{&m.Header, &m.Parent, &m.Metadata} {
		if err := json.Unmarshal(parts[i], into); err != nil {
			return Message{}, fmt.Errorf("reading a message: %w", err)
		}
	}
	return m, nil
}

// sign returns the hexadecimal HMAC-SHA256 of the parts.
func sign(key []byte, parts [][]byte) []byte {
	if len(key) == 0 {
		return []byte{}
	}
	mac := hmac.New(sha256.New, key)
	for _, part := range parts {
		mac.Write(part)
	}
	return hex.AppendEncode(nil, mac.Sum(nil))
}
