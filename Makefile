# Two commands for a stranger: `make demo` and `make test`. Everything is set up on the way.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo serve-demo test check bench docs clean setup

demo: $(READY)
	$(VENV)/bin/modalign demo --out demo

# The demo's models behind a page: prints its address, and ends with Ctrl-C.
serve-demo: $(READY)
	scripts/serve-demo

test: $(READY)
	scripts/test

check: $(READY)
	scripts/check

bench: $(READY)
	scripts/bench

docs: $(READY)
	scripts/docs

setup: $(READY)

$(READY): pyproject.toml serve/pyproject.toml constraints.txt scripts/setup
	PYTHON=$(PYTHON) scripts/setup
	touch $@

clean:
	rm -rf $(VENV) demo build dist site
