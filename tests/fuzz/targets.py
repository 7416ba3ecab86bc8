"""All targets of the fuzzer by name."""

from tests.fuzz import frames, messages, rights, updates

TARGETS = {**updates.TARGETS, **frames.TARGETS, **messages.TARGETS, **rights.TARGETS}
