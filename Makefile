# make demo   the node's main job on this machine          make test   everything the tests need, then all checks
# make faults   kills, full disks, cut wires against a running node, some hundred rounds; the table is in deploy/RELIABILITY.md
# make speedrun   trains a model on simulated studies, from nothing to an evaluated bundle
# make bench   ingest, latency, inference, preparation and explanation beside their peers and bars; into deploy/PERFORMANCE.md
# make long   what takes too long for every day: whole nodes that lose their registry and get it back, or run under systemd, a worklist under faults; hostile senders against two processes
# make soak   two thousand studies through a whole node: speed, and that no process grows
# make fuzz   hostile input for hours: FUZZ times the examples that `make test` runs, others each time
# TORCH_INDEX=https://download.pytorch.org/whl/cpu makes pip take torch's small CPU build instead of the CUDA one.
PYTHON ?= python3
TORCH := torch==2.13.0
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
CONSTRAINTS := deploy/constraints.txt

RUN ?= speedrun
FAULTS ?= 240
FUZZ ?= 50

.PHONY: demo test speedrun install install-test install-training peers lint style types check long bench faults fuzz soak audit audit-packages clean

demo: install
	$(VENV)/bin/dicom-node demo $(DEMO_ARGS)

test: install-test peers style
	$(MAKE) --no-print-directory --jobs 2 types check

speedrun: install-training
	$(VENV)/bin/python -m training.speedrun --out $(RUN) $(SPEEDRUN_ARGS)

install: $(VENV)/.installed-demo
install-test: $(VENV)/.installed-test
install-training: $(VENV)/.installed-training

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: $(VENV)/bin/python
	$(PIP) install --quiet $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	touch $@

$(VENV)/.installed-%: $(VENV)/.torch setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable '.[$*]'
	touch $@

peers:
	deploy/install-test-peers

lint: style types

style:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types:
	$(VENV)/bin/mypy

# Three on two cores: much of the time is spent waiting for nodes.
check:
	$(VENV)/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Known mistakes in our own code; and known ones in the pinned packages, for machines that reach the database of them.
audit: $(VENV)/.installed-audit
	$(VENV)/bin/bandit --quiet --recursive --configfile pyproject.toml dicom_node prima_core training

audit-packages: $(VENV)/.installed-audit
	grep -v '^torch==' $(CONSTRAINTS) > $(VENV)/audited.txt
	echo '$(TORCH)' >> $(VENV)/audited.txt
	$(VENV)/bin/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audited.txt

long:
	PRIMA_LONG=1 $(VENV)/bin/python -m pytest tests/integration/test_backup.py tests/integration/test_withdrawn_again.py tests/integration/test_systemd.py \
	  tests/integration/test_worklist_chaos.py tests/integration/test_orthanc_delivery.py $(PYTEST_ARGS)
	PRIMA_INTAKE_PROCESSES=2 $(VENV)/bin/python -m pytest tests/integration/test_intake_limits.py tests/integration/test_intake_hostile.py \
	  tests/integration/test_intake_dcmtk.py tests/integration/test_intake_arrivals.py tests/fuzz/test_associations.py $(PYTEST_ARGS)

fuzz: install-test
	PRIMA_FUZZ=$(FUZZ) $(VENV)/bin/python -m pytest tests/fuzz $(PYTEST_ARGS)

bench: install-test peers
	$(VENV)/bin/python tests/benchmarks/every.py --write deploy/PERFORMANCE.md

faults: install-test peers
	PRIMA_FAULTS_ROUNDS=$(FAULTS) PRIMA_FAULTS_WRITE=deploy/RELIABILITY.md $(VENV)/bin/python -m pytest -s tests/faults
	PRIMA_LONG=1 PRIMA_CHAOS_STUDIES=300 PRIMA_CHAOS_ROUNDS=6 $(VENV)/bin/python -m pytest tests/integration/test_worklist_chaos.py

soak:
	$(VENV)/bin/python tests/benchmarks/soak.py $(SOAK_ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
