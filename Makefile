# make help lists the targets. Two are all that a newcomer needs: make demo, make test.

SHELL         := bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS     += --no-print-directory

# All modules: the root one, and what else go.work uses.
MODULES := . $(shell sed -n 's,^[[:space:]]*\./,,p' go.work)

# Those that users install, which go install refuses with replace lines.
COMMANDS := $(filter ./cmd/% cmd/%,$(MODULES))

# Pinned, so that a new version of a tool does not change what passes.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

FUZZTIME ?= 10s

# each runs a command in every module, all of them even if one fails.
each = bad=; for m in $(MODULES); do echo "== $$m: $(1)"; (cd $$m && $(1)) || bad="$$bad $$m"; done; \
	[[ -z $$bad ]] || { echo "failed in:$$bad" >&2; exit 1; }

.PHONY: help demo test mutants matrix test-off lint tidy-check vuln generate generate-check fuzz soak bench pin unpin clean redis postgres

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '  %-16s%s\n' $$t "$$d"; done

demo: ## several workers contend for one lock; LOCKSTEP_CONFIG=redis://localhost:6379 or postgres://localhost/db for the same on a server
	@go run ./internal/demo

test: redis postgres ## all tests of all modules with the race detector: the suite on memory, a real Redis, a Cluster and a real Postgres
	@$(call each,go test -race -shuffle=on -count=1 -timeout 40m ./...)
	@cd internal/proof && go test -count=1 -run '^TestHang' . # thousands of callers: under the race detector a few

mutants: ## broken backends and broken cores: what the suite can tell; fails if a clause is not proven
	@go run ./internal/mutants

matrix: redis postgres ## the suite on every backend, into docs/matrix.md; takes some minutes
	@go run ./internal/matrix docs/matrix.md

test-off: ## every module builds by itself, without the workspace
	@$(call each,GOWORK=off go build ./... && GOWORK=off go vet ./...)

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(find . -name '*.go' -not -path '*/testdata/*' -not -path './.git/*' -exec gofmt -l {} +); \
	[[ -z $$unformatted ]] || { echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; }
	@$(call each,go vet ./... && go run $(STATICCHECK) ./...)

tidy-check: ## go.mod and go.sum of every module are as go mod tidy leaves them
	@$(call each,go mod tidy -diff)

vuln: ## govulncheck in every module; passes with a notice where its database cannot be reached
	@.ci/vuln $(GOVULNCHECK) $(MODULES)

# In this order: lockgen needs no package to compile, stringer needs what lockgen writes, and
# the rest needs both.
generate: ## write everything that is generated
	@go generate -run lockgen .
	@cd locker && go generate ./...
	@go generate -skip lockgen .

# Compares before with after rather than with the last commit, so that it also works
# while one is working, and sees new files.
sources = find . -type f -not -path './.git/*' -not -path './bin/*' -exec cksum {} + | sort -k 3
generate-check: ## nothing that is generated is stale
	@before=$$($(sources)); $(MAKE) generate; \
	diff <(echo "$$before") <($(sources)) >&2 || { echo "these files were stale; they are right now" >&2; exit 1; }

fuzz: ## every fuzz target for FUZZTIME (10s)
	@grep -rl --include='*_test.go' --exclude-dir=testdata '^func Fuzz' . | while read -r f; do \
		for t in $$(sed -n 's/^func \(Fuzz[[:alnum:]_]*\)(.*/\1/p' "$$f"); do \
			echo "== $$f: $$t"; (cd "$$(dirname "$$f")" && go test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) . </dev/null); \
		done; done

# From the folder itself, so that go test shows each minute's line at once.
soak: redis postgres ## linearizability and lockstep on memory, Redis and Postgres, without and with faults, for SOAK (1m)
	@mkdir -p artifacts && cd internal/proof && LOCKSTEP_SOAK=$(SOAK) go test -race -count=1 -timeout 0 -run '^TestSoak$$' -artifacts -outputdir '$(CURDIR)/artifacts'

bench: redis postgres ## Lockstep beside its peers in one run, into docs/benchmarks.md
	@go run ./internal/peers/cmd/bench

pin: ## every module requires its siblings at VERSION, for a release
	@[[ "$(VERSION)" =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$$ ]] || { echo "VERSION=$(VERSION): want one such as v0.2.0" >&2; exit 1; }
	@for m in $(MODULES); do (cd $$m && go mod edit -fmt $$(sed -n 's,.*\(github.com/lockstep-go/lockstep/[^ ]*\) v[0-9].*,-require=\1@$(VERSION),p' go.mod)); done

	@for m in $(COMMANDS); do (cd $$m && go mod edit -fmt $$(sed -n 's,^[[:space:]]*\(github.com/lockstep-go/lockstep/[^ ]*\) => .*,-dropreplace=\1,p' go.mod)); done

unpin: ## after a release: the commands build from their siblings again, without the workspace too
	@for m in $(COMMANDS); do (cd $$m && go mod edit -fmt $$(sed -n 's,.*github.com/lockstep-go/lockstep/\([^ ]*\) v[0-9].*,-replace=github.com/lockstep-go/lockstep/\1=../../\1,p' go.mod)); done

clean: ## remove what was built and forget what was tested
	@rm -rf bin artifacts && go clean -testcache

# No targets for the command line: tests that need a server start it themselves.
redis:
	@.ci/redis
postgres:
	@.ci/postgres
