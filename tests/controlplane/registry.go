package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

// registryAddresses is the one line that the registry prints, when it listens.
type registryAddresses struct {
	Front   string `json:"front"`   // what clients use: with the faults of each tenant
	Storage string `json:"storage"` // where the front redirects requests for blobs
	Raw     string `json:"raw"`     // the registry without faults, for pushes, and /tenants/NAME
}

// An imageRegistry is a container registry in memory behind a middleware that demands credentials and
// makes faults. The first component of a repository's name is its tenant. Each test is a tenant with
// settings of its own, so that tests share one registry.
type imageRegistry struct {
	inner     http.Handler
	addresses registryAddresses

	lock    sync.Mutex
	tenants map[string]*registryTenant
}

// registryTenant is what the middleware knows about a tenant.
type registryTenant struct {
	settings registrySettings
	requests []registryRequest
}

// registryRequest is a request that a client has sent to the front or to the storage.
type registryRequest struct {
	Method        string `json:"method"`
	Path          string `json:"path"`
	Query         string `json:"query,omitempty"`
	Host          string `json:"host"`
	Authorization string `json:"authorization,omitempty"` // the scheme only
	Status        int    `json:"status"`
}

// runRegistry serves until standard input ends, which it does when the parent ends in any way.
func runRegistry() int {
	r := &imageRegistry{
		inner:   registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		tenants: map[string]*registryTenant{},
	}
	for _, part := range []struct {
		url     *string
		handler http.HandlerFunc
	}{
		{&r.addresses.Front, r.front},
		{&r.addresses.Storage, r.storage},
		{&r.addresses.Raw, r.raw},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, "controlplane: listening for the registry:", err)
			return 1
		}
		*part.url = "http://" + listener.Addr().String()
		go func() { _ = http.Serve(listener, part.handler) }() // it serves until the process ends
	}
	if err := json.NewEncoder(os.Stdout).Encode(r.addresses); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// tenant returns the tenant of a repository, which need not exist yet.
func (r *imageRegistry) tenant(repository string) *registryTenant {
	name, _, _ := strings.Cut(repository, "/")
	if r.tenants[name] == nil {
		r.tenants[name] = &registryTenant{}
	}
	return r.tenants[name]
}

// settings returns a copy of the tenant's settings, so that a handler holds no lock.
func (r *imageRegistry) settings(repository string) registrySettings {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.tenant(repository).settings
}

// note records a request of a tenant.
func (r *imageRegistry) note(repository string, req *http.Request, status int) {
	scheme, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	r.lock.Lock()
	defer r.lock.Unlock()
	t := r.tenant(repository)
	t.requests = append(t.requests, registryRequest{
		Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery,
		Host: req.Host, Authorization: scheme, Status: status,
	})
}

// front serves clients: tokens, and the registry with the tenant's faults.
func (r *imageRegistry) front(w http.ResponseWriter, req *http.Request) {
	recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	repository := repositoryOf(req)
	if strings.HasPrefix(req.URL.Path, "/oauth2/") || req.URL.Path == "/token" {
		repository = r.token(recorder, req)
	} else {
		r.registry(recorder, req, repository)
	}
	r.note(repository, req, recorder.status)
}

// storage serves blobs, as a cloud's object storage does: it refuses a request with a second kind of
// authentication.
func (r *imageRegistry) storage(w http.ResponseWriter, req *http.Request) {
	recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	repository := repositoryOf(req)
	if req.Header.Get("Authorization") != "" {
		http.Error(recorder, "InvalidAuthenticationInfo", http.StatusBadRequest)
	} else {
		r.inner.ServeHTTP(recorder, req)
	}
	r.note(repository, req, recorder.status)
}

// raw serves tests: the registry itself; PUT /tenants/NAME sets the tenant's settings, and GET
// /tenants/NAME returns the requests of its clients.
func (r *imageRegistry) raw(w http.ResponseWriter, req *http.Request) {
	name, found := strings.CutPrefix(req.URL.Path, "/tenants/")
	if !found {
		r.inner.ServeHTTP(w, req)
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if req.Method != http.MethodPut {
		requests := r.tenant(name).requests
		if requests == nil {
			requests = []registryRequest{}
		}
		_ = json.NewEncoder(w).Encode(requests)
		return
	}
	var settings registrySettings
	decoder := json.NewDecoder(req.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&settings); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.tenant(name).settings = settings
}

// repositoryOf returns the repository in a path of the registry's API; empty if it has none.
func repositoryOf(req *http.Request) string {
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/"} {
		if at := strings.LastIndex(path, part); at > 0 {
			return path[:at]
		}
	}
	return ""
}

// A statusRecorder remembers the status that a handler answers with.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}
