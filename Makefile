# Everything starts from a fresh clone: each target makes what it needs first.
#   make demo    see it work: thousands of jobs, two workers, one of them killed
#   make test    the checks and the tests          make check   the checks alone
#   make soak    the slow tests                    make bench   measure, into docs/performance.md
#   make bench-smoke  two minutes of it, a verdict  make bench-peers  only build the other queues it measures
#   make simulate SEEDS=0..1000  the engine in a simulated world, by seeds; one seed prints all that happened
#   make mutants turn off each safeguard in turn   make chaos   break what can break; both into docs/reliability.md
#   make chaos SEEDS="1 2 3" MINUTES=10
#   make upgrade this version beside the one before, and a migration of a million live jobs
#   make failover  lose the primary under load, with and without Patroni, into docs/reliability.md too

.PHONY: demo test check soak simulate mutants chaos upgrade failover bench bench-peers bench-smoke fresh-machine
.DEFAULT_GOAL := test

PYTEST = .venv/bin/python -m pytest
WORKERS ?= 2
SEEDS ?=
MINUTES ?= 10
ARGS ?=

demo: .venv/quickstart.stamp
	@.venv/bin/piecework demo $(ARGS)

test: check
	@tools/postgresql15.sh >/dev/null
	@tools/pgbouncer.sh >/dev/null
	@$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)

check: .venv/dev.stamp
	.venv/bin/ruff check
	.venv/bin/lint-imports
	.venv/bin/pyright
	.venv/bin/mypy

soak: .venv/dev.stamp
	@tools/postgresql15.sh >/dev/null
	@tools/pgbouncer.sh >/dev/null
	@$(PYTEST) -m soak $(ARGS)

simulate: .venv/dev.stamp
	@PYTHONPATH=tests .venv/bin/python -m simulation $(or $(SEEDS),0..1000)

mutants: .venv/dev.stamp
	@.venv/bin/python tools/mutants.py $(ARGS)

chaos: .venv/dev.stamp
	@.venv/bin/python tools/chaos.py --seeds "$(SEEDS)" --minutes $(MINUTES) $(ARGS)

upgrade: .venv/dev.stamp
	@tools/postgresql15.sh >/dev/null
	@$(PYTEST) -m upgrade -s tests/upgrade $(ARGS)

failover: .venv/dev.stamp
	@tools/postgresql15.sh >/dev/null
	@tools/patroni.sh >/dev/null
	@.venv/bin/python tools/failover.py $(ARGS)

bench: .venv/dev.stamp
	@.venv/bin/python -m bench $(ARGS)

bench-peers: .venv/dev.stamp
	@.venv/bin/python -m bench peers $(ARGS)

bench-smoke: .venv/dev.stamp
	@.venv/bin/python -m bench smoke $(ARGS)

# `make demo` and `make test` in a Debian with nothing but python3, git and make; needs root.
fresh-machine:
	@tools/fresh-machine.sh $(ARGS)

.venv/quickstart.stamp .venv/dev.stamp: .venv/%.stamp: pyproject.toml tools/venv.sh
	@tools/venv.sh $*
