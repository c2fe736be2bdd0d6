# `make help` lists what there is to make.

.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- what the targets below need --------------------------------------------------------------

say = @printf '\n==> %s\n' "$(1)"
need = command -v $(1) >/dev/null || { echo "$(1) is missing: $(2)" >&2; exit 1; }

.PHONY: rust
rust:
	@$(call need,cargo,install Rust 1.95 or newer (https://rustup.rs).)
	@$(call need,cc,install a C compiler (Debian: gcc and libc6-dev).)

# The test cluster: one binary that holds the Kubernetes components. go.mod names their version, and
# the components say it to clients only if the linker writes it into them.
KUBERNETES := $(shell sed -n 's|^\tk8s.io/kubernetes v||p' tests/controlplane/go.mod)
KUBERNETES_PARTS := $(subst ., ,$(KUBERNETES))
VERSION := k8s.io/component-base/version
CONTROLPLANE_FLAGS := -s -w -X $(VERSION).gitVersion=v$(KUBERNETES) \
	-X $(VERSION).gitMajor=$(word 1,$(KUBERNETES_PARTS)) -X $(VERSION).gitMinor=$(word 2,$(KUBERNETES_PARTS))

.PHONY: controlplane
controlplane: target/controlplane ## Builds the Kubernetes components that tests and demo run (needs Go)

target/controlplane: $(wildcard tests/controlplane/*.go) tests/controlplane/go.mod tests/controlplane/go.sum
	@$(call need,go,the test cluster is written in Go: install Go 1.26 or newer (https://go.dev/dl).)
	$(call say,Building Kubernetes $(KUBERNETES) for the tests: minutes the first time and seconds after that)
	@mkdir -p target
	cd tests/controlplane && go build -trimpath -ldflags '$(CONTROLPLANE_FLAGS)' -o ../../target/controlplane .

# What the tests can do without. Each of these installs what is missing with apt-get, where that needs no
# password, and says so (APT=no: it does not); elsewhere it says which tests are skipped. In CI, a part that
# is missing is an error.
.PHONY: python
python: ## Installs the Python client that a test drives the emulator with
	@sh tests/emulator/clients/install.sh

.PHONY: engine
engine: ## Installs what the tests with real containers need (podman)
	@sh tests/engine/install.sh

.PHONY: kubectl
kubectl: ## Unpacks an old kubectl for the tests of commands in containers (Debian's)
	@sh tests/engine/kubectl.sh

.PHONY: monitoring
monitoring: ## Installs Prometheus and Alertmanager, which the tests of triggers start
	@sh tests/cluster/monitoring.sh

# ---- checking -----------------------------------------------------------------------------------

# The tests of the cluster wait most of the time (one of them uses about 8 % of a core), so more of them run at
# once than there are cores.
TEST_THREADS ?= 6

.PHONY: test
test: rust controlplane python engine kubectl monitoring ## Runs everything that CI checks (APT=no: installs nothing)
	$(call say,Format and lints)
	@$(MAKE) --no-print-directory lint
	$(call say,Tests)
	@rm -f target/skipped
	BURSTPOOL_SKIPPED=$(CURDIR)/target/skipped RUST_TEST_THREADS=$(TEST_THREADS) cargo test
	$(call say,One TLS provider and no OpenSSL in what is built)
	@! cargo tree --edges normal,build,dev --prefix none 2>/dev/null | grep -E '^(aws-lc-rs|openssl-sys|native-tls) '
	$(call say,Generated files are as their sources say)
	@cargo run --quiet -- crds | diff - crds/burstpools.yaml || { echo "crds/burstpools.yaml is old: run make crds" >&2; exit 1; }
	@sh tests/skipped.sh target/skipped

.PHONY: lint
lint: rust ## Checks format and lints
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@if command -v gofmt >/dev/null; then test -z "$$(gofmt -l tests/controlplane | tee /dev/stderr)"; fi

.PHONY: audit
audit: ## Checks licences, sources and known advisories (where cargo-deny is installed)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny check

# ---- making and measuring -----------------------------------------------------------------------

.PHONY: crds
crds: rust ## Writes crds/burstpools.yaml from the types
	cargo run --quiet -- crds > target/burstpools.yaml
	mv target/burstpools.yaml crds/burstpools.yaml

# The operator's image, of a static binary that is built here: config/Dockerfile builds the same in a
# container, from a base image. Only the last step, linking, differs from an ordinary build of this profile.
IMAGE ?= burstpool:0.1.0
PROFILE ?= release
ENGINE ?= $(or $(shell command -v podman),$(shell command -v docker))
CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt

.PHONY: image
image: rust ## Builds the operator's image with podman or docker (IMAGE=name:tag, ENGINE=docker)
	@test -n "$(ENGINE)" || { echo "neither podman nor docker is installed: install one, or set ENGINE" >&2; exit 1; }
	@test -e $(CERTIFICATES) || { echo "$(CERTIFICATES) is missing: install ca-certificates, or set CERTIFICATES" >&2; exit 1; }
	$(call say,Building a static binary)
	cargo rustc --locked --profile $(PROFILE) --bin burstpool -- -C target-feature=+crt-static
	$(call say,Building the image $(IMAGE))
	@rm -rf target/image && mkdir -p target/image/etc/ssl/certs
	@cp target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/burstpool target/image/
	@cp $(CERTIFICATES) target/image/etc/ssl/certs/ca-certificates.crt
	$(ENGINE) build --quiet --file config/Dockerfile.scratch --tag $(IMAGE) target/image

.PHONY: demo
demo: rust controlplane ## Plays a peak on a cluster and an emulated Azure (FAST=1: quickly; HOLD=1: all stays)
	$(call say,Building the demo)
	cargo build --example demo
	@exec target/debug/examples/demo $(if $(FAST),--fast) $(if $(HOLD),--hold)

.PHONY: bench
bench: rust controlplane ## Measures emulator and operator (a release build: minutes the first time)
	$(call say,Building for release)
	cargo build --release --bins --example bench
	@exec target/release/examples/bench $(PART)
