# `make help` lists what there is to make.

.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The test cluster: one binary that holds the Kubernetes components. go.mod names their version, and
# the components say it to clients only if the linker writes it into them.
KUBERNETES := $(shell sed -n 's|^\tk8s.io/kubernetes v||p' tests/controlplane/go.mod)
KUBERNETES_PARTS := $(subst ., ,$(KUBERNETES))
VERSION := k8s.io/component-base/version
CONTROLPLANE_FLAGS := -s -w -X $(VERSION).gitVersion=v$(KUBERNETES) \
	-X $(VERSION).gitMajor=$(word 1,$(KUBERNETES_PARTS)) -X $(VERSION).gitMinor=$(word 2,$(KUBERNETES_PARTS))

.PHONY: controlplane
controlplane: target/controlplane ## Builds the Kubernetes components that the tests run against (needs Go)

target/controlplane: $(wildcard tests/controlplane/*.go) tests/controlplane/go.mod tests/controlplane/go.sum
	@command -v go >/dev/null || { echo "The test cluster is written in Go: install Go 1.26 or newer (https://go.dev/dl)." >&2; exit 1; }
	@echo "Building Kubernetes $(KUBERNETES) for the tests: minutes the first time, seconds after that."
	@mkdir -p target
	cd tests/controlplane && go build -trimpath -ldflags '$(CONTROLPLANE_FLAGS)' -o ../../target/controlplane .
