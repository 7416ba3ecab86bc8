"""All targets of the fuzzer by name."""

from tests.fuzz import frames, heads, messages, rights, sockets, updates

TARGETS = {
    **updates.TARGETS,
    **frames.TARGETS,
    **heads.TARGETS,
    **messages.TARGETS,
    **rights.TARGETS,
    **sockets.TARGETS,
}
