# `make demo` and `make test` need only Python 3.11 or later and make: the rest is set up here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt

.PHONY: demo test check format bench-attacks bench-training bench-explanations bench-data clean

demo: $(VENV)/.installed  ## train, attack, explain and report on the phantom
	$(BIN)/diascope demo --out demo

test: $(VENV)/.installed-dev  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

check: $(VENV)/.installed-dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Run folders of a standard and a robust model (of 224 pixels, and of 64 where others are to be
# taken there) and their data, such as DATA=ham10000:/path; without them untrained stand-ins.
# IMAGES: on how many strength is compared. DEVICE=cuda: on a GPU. QUICK=1: a smoke test.
STANDARD_64 ?= $(STANDARD)
ROBUST_64 ?= $(ROBUST)
IMAGES ?= 500
FLAGS = $(if $(DATA),--data '$(DATA)') $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)
AT_224 = $(if $(STANDARD),--model-standard $(STANDARD)) $(if $(ROBUST),--model-robust $(ROBUST)) $(FLAGS)
AT_64 = $(if $(STANDARD_64),--model-standard $(STANDARD_64)) $(if $(ROBUST_64),--model-robust $(ROBUST_64)) $(FLAGS)

bench-attacks: $(VENV)/.installed-dev  ## our attacks beside the peers': STANDARD= ROBUST= DATA= [QUICK=1]
	$(BIN)/python -m benchmarks.pgd --rows a $(AT_224)
	$(BIN)/python -m benchmarks.pgd --rows b $(AT_64)
	$(BIN)/python -m benchmarks.convolution $(AT_224)
	$(BIN)/python -m benchmarks.curve $(AT_224)
	$(BIN)/python -m benchmarks.autoattack $(AT_64)
	$(BIN)/python -m benchmarks.boundary $(AT_64)
	$(BIN)/python -m benchmarks.strength --size 224 --images $(IMAGES) --attacks pgd-l2-7 curve $(AT_224)
	$(BIN)/python -m benchmarks.strength --size 64 --images $(IMAGES) --attacks pgd-l2-7 curve autoattack boundary $(AT_64)
	$(BIN)/python -m benchmarks.table $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)

# Each line is a row of the table, minutes on two cores; the accuracies take some minutes for each
# of SEEDS=, which may be spread over several runs. On a
# GPU (DEVICE=cuda) the PGD-7 step is timed at 224, too, and the whole trainings of CONFIGS=.
SEEDS ?= 0 1 2 3 4
CONFIGS ?= $(foreach name,standard pgd-l2,configs/$(if $(DATA),ham10000-128,phantom)-$(name).yaml)
RUN_SET = $(if $(QUICK),,--set training.epochs=1 data.options.per_class=100)

bench-training: $(VENV)/.installed-dev  ## our training beside the peers': DATA= [MNIST=] [SCHEMES=options] [DEVICE=cuda] [QUICK=1]
	$(BIN)/python -m benchmarks.training_step --rows a $(FLAGS)
	$(BIN)/python -m benchmarks.training_step --rows b $(FLAGS)
	$(BIN)/python -m benchmarks.training_step --rows d $(FLAGS)
	$(BIN)/python -m benchmarks.training_step --rows f $(FLAGS)
	$(if $(filter cuda,$(DEVICE)),$(BIN)/python -m benchmarks.training_step --rows g $(FLAGS))
	$(BIN)/python -m benchmarks.training_accuracy --seeds $(SEEDS) $(FLAGS)
	$(BIN)/python -m benchmarks.training_run --config $(CONFIGS) $(if $(filter cuda,$(DEVICE)),,$(RUN_SET)) $(FLAGS)
	$(if $(MNIST),$(BIN)/python -m benchmarks.schemes configs/p4/mnist*.yaml --data mnist:$(MNIST) $(SCHEMES))
	$(BIN)/python -m benchmarks.table $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)

# The last row takes its peers about six minutes a round.
bench-explanations: $(VENV)/.installed-dev  ## our maps and measures beside the peers': STANDARD= DATA= [DEVICE=cuda] [QUICK=1]
	$(BIN)/python -m benchmarks.explanations $(if $(STANDARD),--model-standard $(STANDARD)) $(FLAGS)
	$(BIN)/python -m benchmarks.explanations_memory $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.maps $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.road $(if $(STANDARD),--model-standard $(STANDARD)) $(FLAGS)
	$(BIN)/python -m benchmarks.table $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)

# On two cores some minutes; with others at work on them the ratios hold better than the rates.
bench-data: $(VENV)/.installed-dev  ## from files to batches beside torch's DataLoader: DATA= [FILES=ham10000] [DEVICE=cuda] [QUICK=1]
	$(BIN)/python -m benchmarks.data $(if $(FILES),--files $(FILES)) $(FLAGS)
	$(BIN)/python -m benchmarks.table $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick)

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .hypothesis

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Diascope needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.installed: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

# Hence --no-deps: torchattacks pins the requests of 2021 for a download that is never made here;
# quantus asks for the opencv with windows, where grad-cam brings the same files without.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --group test --group check --group peers
	$(INSTALL) --no-deps torchattacks quantus
	touch $@
