package hub

import (
	"net/http"
	"net/url"
	"os"
	"strings"
)

const (
	endpointEnv     = "HF_ENDPOINT"
	tokenEnv        = "HF_TOKEN"
	defaultEndpoint = "https://huggingface.co"
)

// modelFiles are those of a model that our packages read; only the first two must be there.
var modelFiles = []string{
	"config.json", "model.safetensors",
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
}

const requiredModelFiles = 2

// HuggingFace names a model of the Hugging Face hub: repo is its identifier
// ("google-bert/bert-base-cased"), revision a branch, tag or commit ("" means
// "main"). Without files, those that our packages read are taken: config.json and
// model.safetensors, and tokenizer files as far as the model has them.
//
// The files are not pinned. Of large files the hub tells the SHA-256, which is
// then verified; of all files what came the first time is recorded. A branch is
// therefore fetched once and stays; name a commit to be sure of the content. The
// licence is not known here: read the model's page.
//
// HF_ENDPOINT is read when HuggingFace is called, HF_TOKEN when a request is made.
func HuggingFace(repo, revision string, files ...string) Resource {
	revision = orDefault(revision, "main")
	r := Resource{
		Name: repo, Version: revision, Kind: "model of the Hugging Face hub",
		Licence: Licence{Evidence: endpoint() + "/" + repo},
	}
	required := len(files)
	if len(files) == 0 {
		files, required = modelFiles, requiredModelFiles
	}
	for i, file := range files {
		r.Files = append(r.Files, File{Path: file, URLs: []string{hubURL(repo, revision, file)}, Optional: i >= required})
	}
	return r
}

func endpoint() string {
	return strings.TrimRight(orDefault(os.Getenv(endpointEnv), defaultEndpoint), "/")
}

func endpointURL() *url.URL {
	parsed, err := url.Parse(endpoint())
	if err != nil {
		return &url.URL{}
	}
	return parsed
}

func hubURL(repo, revision, file string) string {
	parts := strings.Split(file, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return endpoint() + "/" + repo + "/resolve/" + url.PathEscape(revision) + "/" + strings.Join(parts, "/")
}

// authorize adds the token to a request to the hub's own server.
func authorize(request *http.Request) {
	if token := os.Getenv(tokenEnv); token != "" && sameOrigin(request.URL, endpointURL()) {
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	}
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) && a.Host != ""
}

// linkedFile is what the hub tells about a file, perhaps in the redirect to where it is stored.
type linkedFile struct {
	sha256, etag, commit string
}

// read takes the headers of a response of the hub's own server; of others only the ETag counts.
func (l *linkedFile) read(response *http.Response) {
	if response.Request == nil || response.Request.URL == nil {
		return
	}
	if !sameOrigin(response.Request.URL, endpointURL()) {
		if l.etag == "" {
			l.etag = response.Header.Get("ETag")
		}
		return
	}
	tag := orDefault(response.Header.Get("X-Linked-Etag"), response.Header.Get("ETag"))
	bare := strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)
	if sha256Form.MatchString(bare) {
		l.sha256 = bare
	}
	l.etag = orDefault(l.etag, tag)
	l.commit = orDefault(l.commit, response.Header.Get("X-Repo-Commit"))
}
