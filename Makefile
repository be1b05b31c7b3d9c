# One command per chore, the same here and in CI. `make help` lists them.
SHELL := /bin/bash
PYTHON := .venv/bin/python
# More for a verb: `make demo ARGS=--once`, `make test ARGS="-k journal"`.
ARGS :=
PACKAGES := client features stream models api cordon bench tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format up down status bench reference lock clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: ## environments and jars, from the locks; does nothing where nothing changed
	@deploy/setup

demo: setup ## train, replay attack campaigns, show a real pipeline deciding (ARGS=--once ends by itself)
	@.venv/bin/cordon demo $(ARGS)

test: setup check ## checks, then the whole suite on real parts
	@$(PYTHON) -m pytest $(ARGS)

check: setup ## lint, format, types and layering; modifies nothing
	@$(PYTHON) -m ruff check --no-fix $(PACKAGES)
	@$(PYTHON) -m ruff format --check $(PACKAGES)
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo

format: setup ## format and fix what can be fixed
	@$(PYTHON) -m ruff check --fix $(PACKAGES)
	@$(PYTHON) -m ruff format $(PACKAGES)

up: setup ## start the stack and leave it running
	@.venv/bin/cordon up $(ARGS)

down: ## stop the stack
	@.venv/bin/cordon down $(ARGS)

status: ## show the parts of the running stack
	@.venv/bin/cordon status $(ARGS)

bench: setup ## measure: make bench ARGS='http --rate 1000 --write' (docs/measuring.md)
	@.venv/bin/cordon bench $(ARGS)

reference: setup ## write the generated pages and the README's numbers
	@.venv/bin/cordon reference

lock: ## resolve requirements/*.txt again, with hashes and without index addresses
	@$(LOCK) --extra service -o requirements/service.txt
	@$(LOCK) --extra service --extra dev --constraints requirements/service.txt -o requirements/dev.txt
	@$(LOCK) --extra flink -o requirements/flink.txt
# Local wheel directories would pin what others cannot install.
LOCK = env -u PIP_FIND_LINKS -u UV_FIND_LINKS .venv/bin/uv pip compile pyproject.toml --quiet --upgrade \
  --generate-hashes --no-emit-index-url --no-header --python-version 3.12

clean: down ## remove caches and what stacks left; environments and jars stay
	@rm -rf .cordon .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	@find $(PACKAGES) -name __pycache__ -type d -prune -exec rm -rf {} +
