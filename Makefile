# make demo: from nothing to AUROC in one command. make test, lint, bench, docs: for developers.
PYTHON ?= python3
BIN := .venv/bin
STORE := demo-store
REPORT := demo-report
WORKERS ?= 2
BENCHMARKS := ingest probes slices python e2e report scale memory explore

.PHONY: demo install browser test torture audit lint bench docs notebooks site release clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --progress-bar off -q \
	  -c constraints.txt -e ".[demo,dev]"
	touch $@

install: .venv/.installed

# The report's page is tested in a browser; without one those tests are skipped, by name.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  apt="$$([ "$$(id -u)" = 0 ] || echo sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get"; \
	  $$apt update -qq && $$apt install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "Chromium cannot be installed here: the tests in a browser are skipped"

# EfficientNet-Lite0 comes with its weights in a Python package, so no model hub is needed. Its twin
# with random weights shows what pretraining gives.
demo: install
	$(BIN)/embedstore demo demo
	$(BIN)/embedstore add demo --annotations demo/annotations.json --slides demo/slides \
	  --store $(STORE)
	$(BIN)/embedstore add demo-sliderunner --annotations demo/annotations.sqlite \
	  --slides demo/slides --domain-from directory --store $(STORE)
	$(BIN)/embedstore ingest demo --model efficientnet-lite0 --store $(STORE)
	$(BIN)/embedstore ingest demo --model efficientnet-lite0 \
	  --weights efficientnet-lite0=random --as efficientnet-lite0-random --store $(STORE)
	$(BIN)/probes split demo --store $(STORE)
	$(BIN)/probes run demo --scheme cross-domain --store $(STORE)
	$(BIN)/probes run demo --fraction 0.01 --fraction 0.1 --fraction 1 --store $(STORE)
	$(BIN)/e2e run demo --backbone efficientnet-lite0 --patch-px 112 --epochs 2 --min-steps 50 \
	  --fold 0 --fraction 0.1 --fraction 1 --store $(STORE)
	$(BIN)/probes compare demo --store $(STORE)
	$(BIN)/probes compare demo --scheme cross-domain --store $(STORE)
	$(BIN)/probes gap demo --store $(STORE)
	$(BIN)/probes robustness demo --by domain --store $(STORE)
	$(BIN)/probes raters demo --store $(STORE)
	$(BIN)/probes report demo --output $(REPORT) --store $(STORE)
	$(BIN)/embedstore sql "select method, model, fraction, max(n_train) as n_train, \
	  round(avg(value), 3) as auroc, round(stddev_samp(value), 3) as sd, count(*) as runs from results \
	  where metric = 'auroc' and scheme = 'monte-carlo' and group_by = 'annotation' \
	  group by all order by fraction, auroc" \
	  --store $(STORE)
	@echo "The page to open: $(REPORT)/index.html. The store to query next: $(STORE)"
	@echo "  $(BIN)/embedstore sql \"select domain, label, count(*) as n from annotations group by all order by all\" --store $(STORE)"

# Two workers, or WORKERS of them; a worker that is done takes over what another has left.
test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What the suite tries a little, tried much: kills, crowds, full disks, damaged files; up to an
# hour on two cores. TORTURE_SEED=N, which is printed, does the same again.
torture: install
	TORTURE=full $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/torture

# Known faults in what constraints.txt pins, as PyPI's advisory service tells them: needs the network.
audit: install
	$(BIN)/pip check
	$(PYTHON) -m venv .venv/audit && .venv/audit/bin/pip install -q pip-audit
	.venv/audit/bin/pip-audit --strict --no-deps -r constraints.txt

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/bench_$$name.py || exit 1; done
	$(BIN)/python benchmarks/study_coverage.py

# What in docs/ follows from the code: the commands, the calls of Python and the table of models.
docs: install
	$(BIN)/python docs/generate.py

# docs/ and this folder's pages as a site, site/index.html; every link in it is checked.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The notebooks of docs/ with what they show, run anew from empty folders.
notebooks: install
	$(BIN)/python docs/notebooks/execute.py

# What is published: dist/ with the wheel, the source and the versions that were tested. The wheel is
# built from the source, and tried in an environment that has nothing else.
release: install
	rm -rf dist && mkdir -p dist/from
	$(BIN)/python -m build --no-isolation --sdist --outdir dist .
	tar xzf dist/*.tar.gz --strip-components 1 -C dist/from
	$(BIN)/python -m build --no-isolation --wheel --outdir dist dist/from
	cp constraints.txt dist/
	$(PYTHON) -m venv dist/empty
	dist/empty/bin/pip install --disable-pip-version-check --progress-bar off -q \
	  -c dist/constraints.txt dist/*.whl
	PATH="$$PWD/dist/empty/bin:$$PATH" bash tests/house/release.sh dist/try
	rm -rf dist/from dist/empty dist/try

clean:
	rm -rf demo $(STORE) $(REPORT) .venv
