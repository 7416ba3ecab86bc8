"""All targets of the fuzzer by name."""

from tests.fuzz import frames, gaps, heads, messages, rights, sockets, updates

TARGETS = {
    **updates.TARGETS,
    **frames.TARGETS,
    **gaps.TARGETS,
    **heads.TARGETS,
    **messages.TARGETS,
    **rights.TARGETS,
    **sockets.TARGETS,
}
