# The commands of the project. `make help` lists them.
.DEFAULT_GOAL := help
GO ?= go
NODE ?= node
NPM ?= npm

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: need
need:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer from https://go.dev/dl"; exit 1; }
	@command -v $(NODE) >/dev/null || { echo "Node.js is missing: install Node.js 20 or newer from https://nodejs.org"; exit 1; }
	@$(NODE) -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node.js $$($(NODE) --version) is too old: install Node.js 20 or newer from https://nodejs.org"; exit 1; }
	@command -v $(NPM) >/dev/null || { echo "npm is missing: it comes with Node.js from https://nodejs.org"; exit 1; }
	@command -v gcc >/dev/null || { echo "gcc is missing (the race detector needs it): apt-get install gcc, or your system's way"; exit 1; }

.PHONY: deps
deps: need ## Install what the tests need: Go modules, and the payers' clients from npm
	$(GO) mod download
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || \
		{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql; } || \
		{ echo "PostgreSQL is missing: apt-get install postgresql, or your system's way (the tests start it themselves)"; exit 1; }
	cd test/interop && $(NPM) ci --no-audit --no-fund
	cd test/interop/third && ls -d */ | xargs -P 4 -I folder $(NPM) ci --prefix folder --legacy-peer-deps --ignore-scripts --no-audit --no-fund

.PHONY: test
test: deps ## Run all tests
	$(GO) vet ./...
	CGO_ENABLED=1 $(GO) test -race -timeout 25m ./...

.PHONY: demo
demo: ## Show it: a chain, an old site, Caddy, and a payment (needs Go only)
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer from https://go.dev/dl"; exit 1; }
	@echo "building (the first time takes some minutes) ..."
	@[ -t 1 ] && terminal=1 || terminal=0; \
	{ $(GO) build -v -o bin/demo ./cmd/demo 2>&1 || echo build failed; } | awk -v terminal=$$terminal ' \
		/^build failed$$/ { bad = 1; next } \
		/^go: downloading |^[^ \t:]+$$/ { n++; \
			if (terminal) printf "\r\033[K  %d modules and packages", n; else if (n % 250 == 0) printf "  %d modules and packages\n", n; \
			fflush(); next } \
		{ if (terminal) printf "\r\033[K"; print } \
		END { if (terminal) printf "\r\033[K"; else if (n % 250) printf "  %d modules and packages\n", n; exit bad }'
	@bin/demo $(ARGS)

.PHONY: kill
kill: ## Kill it for some minutes: the long form of the money tests
	SOAK=long $(GO) test -timeout 30m -v ./test/soak
	SOAK=long $(GO) test -timeout 10m -v -run TestDamagedImages ./ledger/sqlite

.PHONY: soak
soak: ## Kill it 520 times: the full form of the money tests (some ten minutes)
	SOAK=full $(GO) test -timeout 80m -v ./test/soak
	SOAK=full $(GO) test -timeout 10m -v -run TestDamagedImages ./ledger/sqlite

.PHONY: servers
servers: need ## Attack nginx, Apache, PHP, Express and gunicorn behind the gate, and put proxies before it (installs them; Debian, as root)
	test/interop/servers/install.sh
	$(GO) test -tags servers -timeout 20m -count 1 -v ./test/interop/servers

.PHONY: bench
bench: ## Run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## Fuzz every parser, one minute each
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 1m $$pkg || exit 1; \
		done; \
	done

.PHONY: lint
lint: ## Check the style
	$(GO) build -C tools -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./...

.PHONY: xcaddy
xcaddy: ## Build bin/caddy as users do, with xcaddy
	mkdir -p bin
	$(GO) build -C tools -o ../bin/xcaddy github.com/caddyserver/xcaddy/cmd/xcaddy
	bin/xcaddy build v2.11.9 --with github.com/caddy-paywall/caddy-paywall@v0.0.0=. --output bin/caddy
	bin/caddy list-modules | grep paywall
	bin/caddy validate --config Caddyfile.example --adapter caddyfile
