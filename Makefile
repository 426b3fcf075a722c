# What a developer runs. "make help" lists it.

# The commands that run without cgo build a static program.
export CGO_ENABLED = 0

# goolm is mautrix's end-to-end encryption in Go, for the bridges.
TAGS = goolm
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
BIN = bin/switchboard

# What a failed recipe has begun would count as made.
UNDONE = || { rm -rf $@; exit 1; }

ARGS =

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/switchboard, static
	go build -trimpath -tags $(TAGS) -o $(BIN) ./cmd/switchboard

run: build ## build, and serve this computer from ./data
	./$(BIN) serve $(ARGS)

test: ## run every suite; as root it installs what is missing
	go run ./cmd/dev/check $(ARGS)

unit: ## the tests of the packages, on SQLite and PostgreSQL; ARGS=./homeserver/room/... for some
	go run ./cmd/dev/withpostgres go test -tags $(TAGS) $(or $(ARGS),./...)

lint: ## gofmt, go vet, staticcheck
	go run ./cmd/dev/check lint

race: ## the tests where goroutines meet, with the race detector
	go run ./cmd/dev/check race bridgerace

fuzz: ## every fuzz target, 16 minutes in all; ARGS="-for 10s -run regexp"
	go run ./cmd/dev/fuzz $(ARGS)

conformance: ## Complement; ARGS="-run regexp -logs directory -update", "-with synapse" for hs2
	go run ./cmd/dev/conformance $(ARGS)

federation: ## federation with Dendrite and Synapse; ARGS="-run living/synapse/v12/join -v"
	SWITCHBOARD_TEST_PEERS=$(or $(PEERS),dendrite,synapse) go test -count=1 -tags $(TAGS) -timeout 30m -parallel 8 ./cmd/dev/federate $(ARGS)

alone: ## bridges as programs of their own, beside our server and Synapse; ARGS="-run synapse -v"
	SWITCHBOARD_TEST_PEERS=synapse go run ./cmd/dev/withpostgres go test -count=1 -tags $(TAGS) ./cmd/dev/alone $(ARGS)

toybridge: ## a bridge with the main program of mautrix beside our server; ARGS="-run sealed/SQLite -v"
	SWITCHBOARD_TEST_TOYBRIDGE=1 go run ./cmd/dev/withpostgres go test -count=1 -tags $(TAGS) -timeout 20m ./cmd/dev/toybridge $(ARGS)

calls: cmd/dev/calls/page/node_modules ## calls between two browsers, by way of the relay and from behind NAT; ARGS="-run NAT -v"
	SWITCHBOARD_TEST_CALLS=1 go test -count=1 -tags $(TAGS) -timeout 20m ./cmd/dev/calls $(ARGS)

cmd/dev/calls/page/node_modules: cmd/dev/calls/page/package-lock.json
	(cd cmd/dev/calls/page && npm ci --no-audit --no-fund --loglevel=error) $(UNDONE)
	touch $@

browser: cmd/dev/browser/page/node_modules ## people with Element Web in a browser; ARGS="-run /SQLite -v"
	SWITCHBOARD_TEST_BROWSER=1 go run ./cmd/dev/withpostgres go test -count=1 -tags $(TAGS) -timeout 20m ./cmd/dev/browser $(ARGS)

cmd/dev/browser/page/node_modules: cmd/dev/browser/page/package-lock.json
	(cd cmd/dev/browser/page && npm ci --legacy-peer-deps --ignore-scripts --no-audit --no-fund --loglevel=error) $(UNDONE)
	touch $@

demo: build cmd/dev/demo/node_modules .cache/slixmpp ## a conversation through Matrix, IRC, XMPP and WhatsApp with real clients
	SWITCHBOARD_BIN=$(CURDIR)/$(BIN) DEMO_PYTHON=$(CURDIR)/.cache/slixmpp/bin/python node cmd/dev/demo/main.js

cmd/dev/demo/node_modules: cmd/dev/demo/package-lock.json
	(cd cmd/dev/demo && npm ci --no-audit --no-fund --loglevel=error) $(UNDONE)
	touch $@

.cache/slixmpp: cmd/dev/demo/requirements.txt
	(python3 -m venv $@ && $@/bin/pip install --quiet --disable-pip-version-check --no-input -r $<) $(UNDONE)
	touch $@

bench: ## compare with Dendrite and write docs/performance.md; takes most of an hour
	go run ./cmd/dev/bench $(ARGS)

clean: ## remove what was built and downloaded
	rm -rf bin .cache cmd/dev/demo/node_modules cmd/dev/calls/page/node_modules cmd/dev/browser/page/node_modules

.PHONY: help build run test unit lint race fuzz conformance federation alone toybridge calls browser demo bench clean
