# `make demo` and `make test` work from a fresh clone; each sets up what it needs.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo serve-demo test quick check bench docs lowest clean setup

demo: $(READY)
	$(VENV)/bin/modalign demo --out demo

# Serves the models of the demo with their web page; prints its address and stops with Ctrl-C.
serve-demo: $(READY)
	scripts/serve-demo

test: $(READY)
	scripts/test

# The tests that are not marked slow: under two minutes on two cores.
quick: $(READY)
	scripts/test -m 'not slow'

check: $(READY)
	scripts/check

bench: $(READY)
	scripts/bench

docs: $(READY)
	scripts/docs

# The quick tests with the lowest declared version of every dependency.
lowest:
	PYTHON=$(PYTHON) scripts/lowest all

setup: $(READY)

$(READY): pyproject.toml serve/pyproject.toml constraints.txt scripts/setup
	PYTHON=$(PYTHON) scripts/setup
	touch $@

# Everything that was built goes; what people said while the demo was served stays.
clean:
	rm -rf $(VENV) .venv-lowest build dist site serve/build serve/dist
	if [ -d demo ]; then find demo -mindepth 1 -maxdepth 1 ! -name 'feedback.sqlite*' -exec rm -rf {} +; fi
	rmdir demo 2>/dev/null || true
