package mlflow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/track"
)

// Uploaded is what an upload of files did.
type Uploaded struct {
	// Files and Bytes were sent; Kept is how many files the server had already.
	Files, Kept int
	Bytes       int64
	// Left are files that were not sent, each with why: it is gone, or no longer what the run has noted.
	Left []string
}

// Upload sends the files that a run has noted to the MLflow run that [Client.Export] found or made for it. What the server has
// already is not sent again, so a second call goes on where the first one was stopped, file by file.
//
// The server must take files by its own interface (mlflow server --artifacts-destination …, which is the default); one
// that leaves them to a store of its clients is an error.
func (c Client) Upload(ctx context.Context, run track.Run, to Result) (Uploaded, error) {
	u, err := c.upload(ctx, run, to)
	if err != nil {
		return u, fmt.Errorf("sending files of %s to %s: %w", run.ID, redacted(c.URL), err)
	}
	return u, nil
}

func (c Client) upload(ctx context.Context, run track.Run, to Result) (u Uploaded, err error) {
	var got struct {
		Run remoteRun `json:"run"`
	}
	if err := c.call(ctx, "GET", "runs/get?run_id="+url.QueryEscape(to.RunID), nil, &got); err != nil {
		return u, err
	}
	root, err := proxied(got.Run.Info.Artifacts)
	if err != nil {
		return u, err
	}
	for _, a := range run.Artefacts {
		tag := pair{tagFile + name(a.Path), a.SHA256}
		if slices.Contains(got.Run.Data.Tags, tag) {
			u.Kept++
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(a.Path)) {
			return u, fmt.Errorf("the run has noted a file %q outside of its folder", a.Path)
		}
		file := filepath.Join(run.Dir, filepath.FromSlash(a.Path))
		switch sum, err := checksum(file); {
		case errors.Is(err, fs.ErrNotExist):
			u.Left = append(u.Left, a.Path+" is gone")
			continue
		case err != nil:
			return u, err
		case sum != a.SHA256:
			u.Left = append(u.Left, a.Path+" has changed since the run noted it")
			continue
		}
		if err := c.put(ctx, path.Join(root, a.Path), file, a.Bytes); err != nil {
			return u, fmt.Errorf("%s: %w", a.Path, err)
		}
		if err := c.batch(ctx, to.RunID, nil, nil, []pair{tag}); err != nil {
			return u, err
		}
		u.Files, u.Bytes = u.Files+1, u.Bytes+a.Bytes
	}
	return u, nil
}

// proxied returns the place of a run's files in the server's interface.
func proxied(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "mlflow-artifacts" {
		return "", fmt.Errorf("the server leaves files to %q: start it so that it takes them itself (mlflow server --serve-artifacts --artifacts-destination …), and make the experiment anew", address)
	}
	return strings.TrimPrefix(u.Path, "/"), nil
}

// put sends a file to a place of the server's.
func (c Client) put(ctx context.Context, place, file string, size int64) error {
	segments := strings.Split(place, "/")
	for i, segment := range segments {
		segments[i] = url.PathEscape(segment)
	}
	return c.repeat(ctx, func() (again bool, err error) {
		content, err := os.Open(file)
		if err != nil {
			return false, err
		}
		defer content.Close()
		// No limit of time: a file may be large.
		request, err := c.request(ctx, "PUT", "mlflow-artifacts/artifacts/"+strings.Join(segments, "/"), io.LimitReader(content, size))
		if err != nil {
			return false, err
		}
		request.ContentLength = size
		kind := mime.TypeByExtension(filepath.Ext(file))
		if kind == "" {
			kind = "application/octet-stream"
		}
		request.Header.Set("Content-Type", kind)
		return c.do(ctx, request, nil)
	})
}

func checksum(file string) (string, error) {
	content, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer content.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, content)
	return hex.EncodeToString(hash.Sum(nil)), err
}
