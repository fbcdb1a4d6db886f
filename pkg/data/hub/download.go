package hub

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/plural"
)

const (
	partSuffix    = ".part"
	maxRedirects  = 10
	maxTries      = 200 // of one address, however much progress each of them makes
	maxBackoff    = 10 * time.Second
	maxRetryAfter = time.Minute
	progressBytes = 1 << 20
)

// partState is what a later process must know to go on with a .part file.
type partState struct {
	URL       string `json:"url"`
	Validator string `json:"validator,omitempty"` // ETag or Last-Modified
	SHA256    string `json:"sha256,omitempty"`
}

// permanentError says that trying the same address again is of no use.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// retryAfterError carries the pause that a server asks for.
type retryAfterError struct {
	error
	after time.Duration
}

func (e retryAfterError) Unwrap() error { return e.error }

// transportError says that a request got no response.
type transportError struct{ error }

func (e transportError) Unwrap() error { return e.error }

var errStalled = errors.New("the server has sent nothing for too long")

// download brings in a file from one address, going on after cuts.
func (s *session) download(ctx context.Context, file File, address string) (FileRecord, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return FileRecord{}, errors.New("not an address")
	}
	if err, ok := s.dead[parsed.Host]; ok {
		return FileRecord{}, err
	}
	attempts := orDefault(s.client.Attempts, defaultAttempts)
	pause := orDefault(s.client.Backoff, defaultBackoff)
	fruitless := 0
	for try := 1; ; try++ {
		before := s.partSize(file)
		recorded, err := s.once(ctx, file, address)
		if err == nil {
			return recorded, nil
		}
		var permanent permanentError
		var content *contentError
		var local localError
		if ctx.Err() != nil || errors.As(err, &permanent) || errors.As(err, &content) || errors.As(err, &local) {
			return recorded, err
		}
		if isUnreachable(err) {
			s.dead[parsed.Host] = err
			return recorded, err
		}
		if fruitless++; s.partSize(file) > before {
			fruitless, pause = 0, orDefault(s.client.Backoff, defaultBackoff)
		}
		if fruitless >= attempts || try >= maxTries {
			var transport transportError
			if errors.As(err, &transport) {
				s.dead[parsed.Host] = err
			}
			return recorded, fmt.Errorf("given up after %s: %w", plural.Of(try, "try", "tries"), err)
		}
		wait := pause
		var asked retryAfterError
		if errors.As(err, &asked) && asked.after > wait {
			wait = min(asked.after, maxRetryAfter)
		}
		s.tell(Event{File: file.Path, Stage: StageRetry, Source: redact(address), Err: err})
		select {
		case <-ctx.Done():
			return recorded, ctx.Err()
		case <-time.After(wait):
		}
		pause = min(2*pause, maxBackoff)
	}
}

// isUnreachable reports whether no connection could be made: other files of the same host need not be tried.
func isUnreachable(err error) bool {
	var operation *net.OpError
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &name) || errors.As(err, &certificate) || errors.As(err, &operation) && (operation.Op == "dial" || operation.Op == "proxyconnect")
}

func (s *session) partSize(file File) int64 {
	info, err := os.Stat(s.path(file) + partSuffix)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (s *session) dropPart(file File) {
	_ = os.Remove(s.path(file) + partSuffix)
	_ = os.Remove(s.path(file) + partSuffix + ".json")
}

// resumable returns how many bytes of the .part file can be built upon, and the validator to send.
func (s *session) resumable(file File, address string) (offset int64, validator string) {
	offset = s.partSize(file)
	if offset == 0 || offset > s.limit(file) {
		return 0, ""
	}
	var state partState
	content, err := os.ReadFile(s.path(file) + partSuffix + ".json")
	if err != nil || json.Unmarshal(content, &state) != nil {
		return 0, ""
	}
	switch {
	case state.URL == redact(address) && state.Validator != "":
		return offset, state.Validator
	case file.SHA256 != "" && state.SHA256 == file.SHA256:
		return offset, "" // whatever the server has now, the checksum will tell
	}
	return 0, ""
}

// once makes one request and takes what it gives.
func (s *session) once(ctx context.Context, file File, address string) (FileRecord, error) {
	offset, validator := s.resumable(file, address)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := orDefault(s.client.IdleTimeout, defaultIdleTimeout)
	watchdog := time.AfterFunc(idle, func() { cancel(errStalled) })
	defer watchdog.Stop()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return FileRecord{}, permanentError{errors.New("not an address")}
	}
	request.Header.Set("User-Agent", "elastic-workbench")
	request.Header.Set("Accept-Encoding", "identity") // the checksum is that of the bytes as they are
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if validator != "" {
			request.Header.Set("If-Range", validator)
		}
	}
	authorize(request)
	linked := &linkedFile{}
	response, err := s.httpClient(linked).Do(request)
	if err != nil {
		return FileRecord{}, transportError{plainError(ctx, err)}
	}
	defer response.Body.Close()
	linked.read(response)

	total, err := s.accept(file, response, &offset)
	if err != nil {
		return FileRecord{}, err
	}
	if linked.sha256 != "" && file.SHA256 == "" {
		file.SHA256 = linked.sha256 // the hub tells what the content must be
	}
	state := partState{URL: redact(address), Validator: validatorOf(response), SHA256: file.SHA256}
	if response.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		response.Body = http.NoBody
	} else if err := s.writeState(file, state); err != nil {
		return FileRecord{}, err
	}
	body := &progressReader{reader: response.Body, watchdog: watchdog, idle: idle, report: func(n int64) {
		s.tell(Event{File: file.Path, Stage: StageProgress, Source: redact(address), Done: offset + n, Total: total})
	}}
	size, sum, err := s.append(file, body, offset)
	if err != nil {
		var local localError
		if errors.As(err, &local) {
			return FileRecord{}, err
		}
		return FileRecord{}, plainError(ctx, err)
	}
	if err := s.check(file, size, sum); err != nil {
		s.dropPart(file)
		if offset > 0 {
			return FileRecord{}, fmt.Errorf("the file put together from two downloads is wrong: %v", err) // once more from its start
		}
		return FileRecord{}, err
	}
	if err := atomicfile.Commit(s.path(file)+partSuffix, s.path(file)); err != nil {
		return FileRecord{}, localError{err}
	}
	s.dropPart(file)
	return FileRecord{SHA256: sum, Size: size, ETag: linked.etag, Commit: linked.commit}, nil
}

// accept looks at status and headers. It returns the size of the whole file (0 when
// unknown), and sets offset to 0 if the server starts from the beginning.
func (s *session) accept(file File, response *http.Response, offset *int64) (int64, error) {
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return 0, permanentError{fmt.Errorf("the server sends the file as %q, want it as it is", encoding)}
	}
	var total int64
	switch response.StatusCode {
	case http.StatusOK:
		*offset = 0
		total = max(response.ContentLength, 0)
	case http.StatusPartialContent:
		var first, last int64
		var whole string
		_, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-%d/%s", &first, &last, &whole)
		if err != nil || *offset == 0 || first != *offset {
			s.dropPart(file)
			return 0, fmt.Errorf("the server sends range %q, want one from byte %d on", response.Header.Get("Content-Range"), *offset)
		}
		total, _ = strconv.ParseInt(whole, 10, 64) // "*" when unknown
	case http.StatusRequestedRangeNotSatisfiable:
		// All bytes may be there already.
		if response.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", *offset) {
			s.dropPart(file)
			return 0, errors.New("the server has fewer bytes than were fetched before")
		}
		total = *offset
	case http.StatusNotFound, http.StatusGone:
		return 0, permanentError{fmt.Errorf("the server says %q: %w", response.Status, errAbsent)}
	case http.StatusUnauthorized, http.StatusForbidden:
		hint := ""
		if sameOrigin(response.Request.URL, endpointURL()) {
			hint = " (HF_TOKEN gives access to models that ask for it)"
		}
		return 0, permanentError{fmt.Errorf("the server says %q%s", response.Status, hint)}
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		err := fmt.Errorf("the server says %q", response.Status)
		if seconds, parseErr := strconv.Atoi(response.Header.Get("Retry-After")); parseErr == nil && seconds > 0 {
			return 0, retryAfterError{err, time.Duration(seconds) * time.Second}
		}
		return 0, err
	default:
		return 0, permanentError{fmt.Errorf("the server says %q", response.Status)}
	}
	if limit := s.limit(file); total > limit {
		return 0, &contentError{fmt.Errorf("%s has %d bytes, the most that is accepted is %d", file.Path, total, limit)}
	}
	if file.Size > 0 && total > 0 && total != file.Size {
		return 0, &contentError{fmt.Errorf("%s has %d bytes, want %d", file.Path, total, file.Size)}
	}
	return total, nil
}

func (s *session) writeState(file File, state partState) error {
	content, err := json.Marshal(state)
	if err == nil {
		err = atomicfile.WriteFile(s.path(file)+partSuffix+".json", content)
	}
	if err != nil {
		return localError{err}
	}
	return nil
}

// append adds what comes to the .part file behind offset and returns size and SHA-256 of all of it.
func (s *session) append(file File, body io.Reader, offset int64) (int64, string, error) {
	part, err := os.OpenFile(s.path(file)+partSuffix, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return 0, "", localError{err}
	}
	defer part.Close()
	if err := part.Truncate(offset); err != nil {
		return 0, "", localError{err}
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, part); err != nil { // leaves the file at its end
		return 0, "", localError{err}
	}
	var out io.Writer = part
	if s.client.wrapWriter != nil {
		out = s.client.wrapWriter(out)
	}
	// The hash comes behind the disk: both have the same bytes even if the disk refuses some.
	n, err := io.Copy(io.MultiWriter(&diskWriter{out}, sum), io.LimitReader(body, s.limit(file)-offset+1))
	if err != nil {
		return 0, "", err
	}
	if err := part.Close(); err != nil {
		return 0, "", localError{err}
	}
	return offset + n, hex.EncodeToString(sum.Sum(nil)), nil
}

// httpClient is the client's with a policy for redirects.
func (s *session) httpClient(linked *linkedFile) *http.Client {
	client := http.Client{Transport: defaultTransport()}
	if s.client.HTTP != nil {
		client = *s.client.HTTP
	}
	policy := client.CheckRedirect
	client.CheckRedirect = func(request *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return permanentError{fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		if via[0].URL.Scheme == "https" && request.URL.Scheme != "https" {
			return permanentError{errors.New("the server redirects from https to " + request.URL.Scheme)}
		}
		if !sameOrigin(request.URL, via[0].URL) {
			request.Header.Del("Authorization")
		}
		if request.Response != nil {
			linked.read(request.Response)
		}
		if policy != nil {
			return policy(request, via)
		}
		return nil
	}
	return &client
}

func defaultTransport() http.RoundTripper {
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	transport = transport.Clone()
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	transport.TLSHandshakeTimeout = 10 * time.Second
	transport.DisableKeepAlives = true // it serves one request
	return transport
}

// plainError drops the address from an error of net/http: behind redirects it may
// carry a signature. It tells a stalled server from a caller who has cancelled.
func plainError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var located *url.Error
	if errors.As(err, &located) {
		err = located.Err
	}
	return err
}

// validatorOf gives what If-Range may carry: a strong ETag, else a date.
func validatorOf(response *http.Response) string {
	if tag := response.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return response.Header.Get("Last-Modified")
}

// progressReader reports bytes now and then, and keeps the watchdog quiet while they come.
type progressReader struct {
	reader      io.Reader
	watchdog    *time.Timer
	idle        time.Duration
	report      func(int64)
	n, reported int64
}

func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.reader.Read(p)
	if n > 0 {
		r.watchdog.Reset(r.idle)
		r.n += int64(n)
		if r.n-r.reported >= progressBytes {
			r.reported = r.n
			r.report(r.n)
		}
	}
	return n, err
}
