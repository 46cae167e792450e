# Which Postgres: PG=15, 17 or 18 is a private one below target/; PG_CONFIG=/path is a copy of
# that server; neither is the one pg_config finds, else 15. `make test` takes 15, 17 and 18.
SELECTOR := $(or $(PG_CONFIG),$(PG))

.PHONY: help demo demo-stop test bench lint fmt install clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'PG=15|17|18 or PG_CONFIG=/path/to/pg_config selects the Postgres.'

demo: ## three servers, three kinds of link, played in front of you
	@scripts/demo '$(SELECTOR)'

demo-stop: ## stop the servers of the demo
	@[ ! -d target/demo ] || cargo run --quiet -p pg_test --bin demo -- target/demo stop

test: ## every test, on Postgres 15, 17 and 18 (TEST=name: one file of stories)
	@TEST='$(TEST)' ARGS='$(ARGS)' scripts/test $(or $(SELECTOR),15 17 18)

bench: ## how fast it is
	@scripts/bench '$(SELECTOR)'

lint: ## formatting and clippy, as CI checks them
	@scripts/lint

fmt: ## format the code
	@cargo fmt --all

install: ## build for speed and install into the Postgres of PG_CONFIG
	@scripts/install '$(PG_CONFIG)'

clean: demo-stop ## remove everything built, fetched or started
	@rm -rf target
