# Everything a contributor does. `make` alone lists it.
#
# Each target sets up what it needs on a bare Debian 12 or newer, as root or with sudo: packages from Debian that are
# missing, uv from PyPI into build/uv, and the locked dependencies into .venv. Nothing is installed by a script from
# the web, and nothing outside this folder is changed except by apt-get.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# A Python of 3.11 or newer; Debian's own will do.
PYTHON ?= python3
# Passed on to pytest, such as ARGS='-k terminal -x'.
ARGS ?=

# What the tests and the documentation need from Debian.
PACKAGES := python3 python3-venv ca-certificates
# What the lab needs to boot an emulated hypervisor; the targets that boot one ask for these as well.
PACKAGES_LAB := apt busybox-static gcc libc6-dev mmdebstrap qemu-system-x86 seabios util-linux

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
UV := build/uv/bin/uv
RUN := $(UV) run --locked --no-sync --
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: demo
demo: env-lab  ## boot a hypervisor in emulation, hook it, find the hook, leave an HTML report (minutes)
	$(RUN) hypervigil lab demo

.PHONY: test
test: env-lab  ## all tests: unit, laws, lab (ARGS go to pytest)
	$(RUN) pytest $(ARGS)

.PHONY: unit
unit: env  ## the tests that boot nothing (ARGS go to pytest)
	$(RUN) pytest -m "not lab" $(ARGS)

.PHONY: check
check: check-code check-types check-imports check-house check-reference check-news check-docs  ## all that is not a test: style, types, layers, documentation (-k goes on after a failure)

.PHONY: check-code
check-code: env
	$(RUN) ruff check
	$(RUN) ruff format --check

.PHONY: check-types
check-types: env
	$(RUN) mypy src tests tools $(wildcard bench)

.PHONY: check-imports
check-imports: env
	$(RUN) lint-imports

.PHONY: check-house
check-house: env
	$(RUN) pytest -q tests/house

.PHONY: check-reference
check-reference: env
	$(RUN) python -m tools.reference --check

.PHONY: check-news
check-news: env
	$(RUN) towncrier build --draft --version next --date 2000-01-01 >build/news.md

.PHONY: check-docs
check-docs: docs

.PHONY: docs
docs: env  ## build the documentation and the manual page into site/, any warning is an error
	$(RUN) python -m tools.reference
	$(RUN) python -m sphinx -q -W --keep-going -n -b html docs site
	$(RUN) python -m tools.manual site/hypervigil.1

.PHONY: reference
reference: env  ## write the reference pages that follow from the code
	$(RUN) python -m tools.reference

.PHONY: golden
golden: env  ## store what the report formats write now; read the diff
	HYPERVIGIL_GOLDEN=write $(RUN) pytest -q tests/report -k stored

.PHONY: format
format: env  ## format the code and mend what can be mended
	$(RUN) ruff check --fix
	$(RUN) ruff format

.PHONY: bench
bench: env-lab  ## measure speed against other tools, write the figures to build/bench
	$(UV) sync --locked --group bench --quiet
	$(RUN) python -m bench

.PHONY: lab-matrix
lab-matrix: env-lab  ## every kernel of the lab with every tampering, as a table (an hour or more)
	$(RUN) hypervigil lab matrix --kernel 5.10 --kernel 6.1 --kernel 6.12 --kernel newest -o build/matrix \
	  --results docs/reference/matrix.json --page docs/reference/matrix.md all

.PHONY: env
env: .venv/synced  ## set up what the tests and the documentation need

.PHONY: env-lab
env-lab: env
	@$(call install,$(PACKAGES_LAB))

.PHONY: deps
deps:  ## install the Debian packages that are missing
	@$(call install,$(PACKAGES))

.PHONY: clean
clean:  ## remove what the targets made, except .venv
	rm -rf build site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(UV): | deps
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

.venv/synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --locked --quiet --python $(PYTHON)
	touch $@

# install: names the packages that are missing, and installs those
define install
missing=; for package in $(1); do \
  dpkg-query --show --showformat='$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || missing+=" $$package"; \
done; \
if [ -n "$$missing" ]; then \
  echo "installing from Debian:$$missing"; \
  $(SUDO) apt-get update -qq; \
  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
fi
endef
