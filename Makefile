# Everything goes through cargo; this file only remembers the commands.
#   make demo          install what is missing, build, show a whole backup life on a throw-away server
#   make test          the whole suite
#   make test-matrix   the PostgreSQL suite once per major, 13 to 18
#   make bench         side by side with pg_dump, restic and pg_restore; SCALE and RUNS are parameters
#   make check         formatting, lints, documentation, systemd units
#   make install       the program, its man pages, completions and systemd units, under PREFIX

PREFIX  ?= /usr/local
DESTDIR ?=
SCALE   ?= 0.1
RUNS    ?= 3

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test torture test-matrix bench check build install setup

build:
	@scripts/setup build
	cargo build --release --locked --package lifeboat

demo: build
	$(TARGET)/release/lifeboat demo

test: setup
	cargo test --workspace --locked

# Every strike, where the suite takes some; root, for the power cuts. The report is docs/reliability.md.
torture: setup
	rm -f $(abspath $(TARGET))/torture.jsonl
	LIFEBOAT_TORTURE=1 LIFEBOAT_TORTURE_REPORT=$(abspath $(TARGET))/torture.jsonl cargo test --locked --package lifeboat \
	    --test power_cut --test expire --test interrupted_backup --test keys --test copy --test damage \
	    --test eight_at_once --test bad_network --test others --test repair
	cargo xtask reliability $(abspath $(TARGET))/torture.jsonl

test-matrix:
	scripts/test-matrix

bench: build
	cargo xtask bench --scale $(SCALE) --runs $(RUNS)

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	scripts/check-units

install:
	@[ -x $(TARGET)/release/lifeboat ] || $(MAKE) build
	install -D -m 0755 $(TARGET)/release/lifeboat $(DESTDIR)$(PREFIX)/bin/lifeboat
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -D -m 0644 docs/completions/lifeboat.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lifeboat
	install -D -m 0644 docs/completions/_lifeboat $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_lifeboat
	install -D -m 0644 docs/completions/lifeboat.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lifeboat.fish
	for unit in packaging/systemd/*; do \
	    sed 's#/usr/local/bin/#$(PREFIX)/bin/#' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}; \
	done

setup:
	@scripts/setup
