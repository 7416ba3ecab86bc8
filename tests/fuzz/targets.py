"""All targets of the fuzzer by name."""

from tests.fuzz import frames, messages, rights, sockets, updates

TARGETS = {
    **updates.TARGETS,
    **frames.TARGETS,
    **messages.TARGETS,
    **rights.TARGETS,
    **sockets.TARGETS,
}
