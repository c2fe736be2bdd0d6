package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// registrySettings says what the middleware demands from a tenant's clients, and which faults it makes.
type registrySettings struct {
	Auth     string `json:"auth"` // "": none; "basic", "bearer", "acr"
	User     string `json:"user"`
	Password string `json:"password"`
	// With auth bearer: tokens without credentials are given too.
	Anonymous bool   `json:"anonymous"`
	Challenge string `json:"challenge"` // replaces the challenge's text
	TokenBody string `json:"tokenBody"` // replaces the body of answers with tokens

	Status     int    `json:"status"` // every request is answered with it
	RetryAfter string `json:"retryAfter"`
	On         string `json:"on"` // Status is for requests whose path contains it

	Redirect   string `json:"redirect"`   // blobs: "storage", or the beginning of a URL
	RedirectTo string `json:"redirectTo"` // everything: the beginning of a URL
	// RedirectTo is for requests to this host.
	RedirectFrom string `json:"redirectFrom"`

	Corrupt  string `json:"corrupt"`  // bodies whose path contains it are changed
	Endless  string `json:"endless"`  // bodies whose path contains it do not end
	Drip     string `json:"drip"`     // bodies whose path contains it come a byte at a time, and do not end
	Hang     string `json:"hang"`     // requests whose path contains it are not answered
	NoDigest bool   `json:"noDigest"` // no Docker-Content-Digest
	NoHead   bool   `json:"noHead"`   // HEAD is answered with 405
	Digest   string `json:"digest"`   // replaces Docker-Content-Digest
	Delay    int    `json:"delay"`    // of each request, in milliseconds
}

// registry serves one request of the registry's API for a tenant.
func (r *imageRegistry) registry(w http.ResponseWriter, req *http.Request, repository string) {
	s := r.settings(repository)
	time.Sleep(time.Duration(s.Delay) * time.Millisecond)
	concerns := func(part string) bool { return part != "" && strings.Contains(req.URL.Path, part) }
	switch {
	case concerns(s.Hang):
		<-req.Context().Done()
	case s.Status != 0 && (s.On == "" || concerns(s.On)):
		if s.RetryAfter != "" {
			w.Header().Set("Retry-After", s.RetryAfter)
		}
		registryError(w, s.Status, "TOOMANYREQUESTS", "a status that the test has set")
	case s.RedirectTo != "" && (s.RedirectFrom == "" || s.RedirectFrom == req.Host):
		http.Redirect(w, req, s.RedirectTo+req.URL.RequestURI(), http.StatusTemporaryRedirect)
	case !s.admits(req, repository):
		w.Header().Set("WWW-Authenticate", r.challenge(s, repository))
		registryError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	case s.NoHead && req.Method == http.MethodHead:
		registryError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "no HEAD")
	case s.Redirect != "" && strings.Contains(req.URL.Path, "/blobs/"):
		to := s.Redirect
		if to == "storage" {
			to = r.addresses.Storage
		}
		http.Redirect(w, req, to+req.URL.RequestURI(), http.StatusTemporaryRedirect)
	case concerns(s.Endless):
		endless(w)
	case concerns(s.Drip):
		drip(w)
	default:
		r.answer(w, req, s, concerns(s.Corrupt))
	}
}

// answer serves the registry's own answer, changed as the settings say.
func (r *imageRegistry) answer(w http.ResponseWriter, req *http.Request, s registrySettings, corrupt bool) {
	inner := httptest.NewRecorder()
	r.inner.ServeHTTP(inner, req)
	if s.NoDigest {
		inner.Header().Del("Docker-Content-Digest")
	}
	if s.Digest != "" {
		inner.Header().Set("Docker-Content-Digest", s.Digest)
	}
	for name, values := range inner.Header() {
		w.Header()[name] = values
	}
	body := inner.Body.Bytes()
	if corrupt {
		body = bytes.ReplaceAll(body, []byte("amd64"), []byte("AMD64"))
	}
	w.WriteHeader(inner.Code)
	_, _ = w.Write(body)
}

// endless writes until the client has gone.
func endless(w http.ResponseWriter) {
	part := bytes.Repeat([]byte(" "), 1<<16)
	for {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// drip writes a byte several times a second until the client has gone.
func drip(w http.ResponseWriter) {
	for {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		if flusher, ok := w.(interface{ Flush() }); ok {
			flusher.Flush()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// admits says whether the request carries what the tenant demands.
func (s *registrySettings) admits(req *http.Request, repository string) bool {
	user, password, basic := req.BasicAuth()
	name, _, _ := strings.Cut(repository, "/")
	switch s.Auth {
	case "":
		return true
	case "basic":
		return basic && user == s.User && password == s.Password
	default:
		return req.Header.Get("Authorization") == "Bearer token-"+name
	}
}

func (r *imageRegistry) challenge(s registrySettings, repository string) string {
	switch {
	case s.Challenge != "":
		return s.Challenge
	case s.Auth == "basic":
		return `Basic realm="registry"`
	case s.Auth == "acr":
		return fmt.Sprintf(`Bearer realm="%s/oauth2/token",service="acr",scope="repository:%s:pull"`, r.addresses.Front, repository)
	default:
		return fmt.Sprintf(`Bearer realm="%s/token",service="registry",scope="repository:%s:pull"`, r.addresses.Front, repository)
	}
}

// token serves the endpoints that issue tokens, and returns the repository that the token is for:
// GET /token as most registries have it, and Azure Container Registry's POST /oauth2/exchange (a token
// of Entra ID becomes a refresh token) and POST /oauth2/token (which becomes an access token).
func (r *imageRegistry) token(w http.ResponseWriter, req *http.Request) string {
	if req.URL.Path == "/token" {
		return r.plainToken(w, req)
	}
	if req.Method != http.MethodPost || req.ParseForm() != nil {
		registryError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "POST a form")
		return ""
	}
	if req.URL.Path == "/oauth2/exchange" {
		name, known := strings.CutPrefix(req.PostForm.Get("access_token"), "entra-")
		if !known || req.PostForm.Get("grant_type") != "access_token" || req.PostForm.Get("service") != req.Host {
			registryError(w, http.StatusUnauthorized, "UNAUTHORIZED", "the token is not from the tenant of the registry")
			return name
		}
		issue(w, r.settings(name), "refresh_token", "refresh-"+name)
		return name
	}
	scope := strings.Split(req.PostForm.Get("scope"), ":")
	if len(scope) != 3 {
		registryError(w, http.StatusBadRequest, "UNSUPPORTED", "no scope")
		return ""
	}
	name, _, _ := strings.Cut(scope[1], "/")
	if req.PostForm.Get("refresh_token") != "refresh-"+name || req.PostForm.Get("grant_type") != "refresh_token" {
		registryError(w, http.StatusUnauthorized, "UNAUTHORIZED", "the refresh token is not for this repository")
		return scope[1]
	}
	issue(w, r.settings(name), "access_token", "token-"+name)
	return scope[1]
}

func (r *imageRegistry) plainToken(w http.ResponseWriter, req *http.Request) string {
	scope := strings.Split(req.URL.Query().Get("scope"), ":")
	if len(scope) != 3 || scope[2] != "pull" || req.URL.Query().Get("service") == "" {
		registryError(w, http.StatusBadRequest, "UNSUPPORTED", "no scope or service")
		return ""
	}
	s := r.settings(scope[1])
	name, _, _ := strings.Cut(scope[1], "/")
	user, password, basic := req.BasicAuth()
	switch {
	case basic && user == s.User && password == s.Password:
		issue(w, s, "token", "token-"+name)
	case !basic && s.Anonymous:
		issue(w, s, "access_token", "token-"+name)
	default:
		registryError(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
	}
	return scope[1]
}

func issue(w http.ResponseWriter, s registrySettings, kind, token string) {
	if s.TokenBody != "" {
		_, _ = w.Write([]byte(s.TokenBody))
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{kind: token, "expires_in": 300})
}

// registryError answers with an error in the form of the distribution specification.
func registryError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
