# `make demo` and `make test` set up what is missing and run. Nothing else is needed
# first but Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test bench lint format offline sdks js js-page sbom clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/attest-gateway demo

test: $(READY)
	$(BIN)/pytest --cov --cov-report=term --cov-report=xml

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate -q attest gateway
	$(BIN)/codespell
	$(BIN)/shellcheck scripts/* .ci/run
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict helm
	$(BIN)/coverage report --include='attest/*' --omit='attest/training/*' --fail-under=98
	$(BIN)/coverage report --fail-under=93 --format=total

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The tables of docs/performance.md: the data path beside others (LiteLLM and vllm-router
# where `python -m venv .venv-bench` has them, nginx where it is installed), then library,
# loading and training. The second part runs where the first one failed, too.
bench: $(READY)
	status=0; \
	$(BIN)/python bench/gateway/run.py --out bench/gateway || status=1; \
	$(BIN)/python bench/library/run.py --out bench/library || status=1; \
	exit $$status

# A bundle that the demo made, checked where neither torch nor vLLM is installed.
offline: $(READY)
	scripts/offline

# LangChain, LlamaIndex, LiteLLM and older OpenAI SDKs, in environments of their own.
sdks:
	scripts/sdks "$(PYTHON)"

# The TypeScript package and the evidence page, held against Python.
js: $(READY)
	scripts/js

# Writes gateway/static/evidence.html anew, after a change in clients/js/src.
js-page:
	npm --prefix clients/js run --silent page

# What the image `gateway` installs, as a CycloneDX document.
sbom: $(READY)
	scripts/sbom sbom.cdx.json

# Set-up runs again only when the dependencies change.
$(READY): pyproject.toml scripts/setup
	scripts/setup "$(PYTHON)" "$(VENV)"
	@touch $@

clean:
	rm -rf $(VENV) .venv-offline .venv-sdks .venv-openai1 demo-run build sbom.cdx.json *.egg-info clients/js/node_modules clients/js/dist
