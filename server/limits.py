"""Every bound of the server in one place: what may be how large, how many, how old.

A limit is named after what it bounds, its unit comes last. Settings may change those that operators
asked for; the others follow from them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds, with defaults that suit one node with 2 GB of memory."""

    message_bytes_max: int = 64 << 20
    """One WebSocket message or REST body. A client that was offline sends its whole document in
    one.
    """
    frames_per_second: int = 5_000
    """Messages of one connection, in the long run; 0 for no limit.

    A y-websocket client repeats every presence message that it hears, so it sends as many as its
    whole room: 50 people who move a mouse make 1,500 a second for each of them.
    """
    bytes_per_second: int = 16 << 20
    """What one connection may send, in the long run; 0 for no limit."""
    subject_frames_per_second: int = 20_000
    """Messages of all connections of one subject, in the long run; 0 for no limit."""
    subject_bytes_per_second: int = 64 << 20
    """What all connections of one subject may send, in the long run; 0 for no limit."""
    address_frames_per_second: int = 100_000
    """Messages of all connections from one address beyond this machine; 0 for no limit."""
    address_bytes_per_second: int = 256 << 20
    """What all connections from one such address may send; 0 for no limit."""
    burst_seconds: int = 10
    """So many seconds' worth may come at once: a script's thousand small edits, a large paste."""

    connections_max: int = 50_000
    """Sockets of this node, at about 14 KB each; 0 for no limit."""
    connections_per_address: int = 1_000
    """Sockets from one address beyond this machine: a large office behind one router; 0 for no
    limit.
    """
    connections_per_subject: int = 200
    """Sockets of one subject: somebody with many tabs on several devices; 0 for no limit."""
    handshakes_per_second: int = 100
    """Handshakes from one address beyond this machine, in the long run; 0 for no limit."""
    addresses_max: int = 10_000
    """Addresses and subjects that are remembered after all their sockets are gone."""

    offences_forgiven: int = 10
    """Refused handshakes, or connections closed for what was sent, that a subject or an address may
    have on its account; whoever has more is kept waiting.
    """
    offence_seconds: float = 10.0
    """An offence is forgotten after this, one after the other."""
    offender_seconds: float = 10.0
    """How long an answer takes then; a y-websocket client waits as long as it takes."""
    offenders_waiting_max: int = 2_000
    """Those that are kept waiting at once, at about 10 KB each; further ones are answered."""

    heads_max: int = 2_000
    """Connections that have not sent the whole head of a request; beyond it the oldest is cut."""
    head_seconds: float = 10.0
    """How long a request's head may take: from the connection, or from the head's first byte."""
    head_bytes_max: int = 64 << 10
    """The head of a request: a token of 16 KB, twice, and a browser's cookies."""
    stall_seconds: float = 60.0
    """A client of HTTP that sends no more of a request's body, or takes no more of a response, for
    this long is cut off.
    """

    rooms_max: int = 100_000
    """Rooms in memory, at about 10 KB for an empty one; 0 for no limit."""
    loads_max: int = 64
    """Documents that are being loaded at once; others wait for their turn."""

    document_bytes_max: int = 64 << 20
    """Encoded size of a document above which only deletions are accepted; 0 for no limit.

    In memory it takes up to 12 times as much.
    """
    measure_seconds: float = 30.0
    """A document that seems to be full is encoded, to learn its true size, no more often than this.
    """

    room_name_bytes_max: int = 1024
    """UTF-8 bytes of a room's name."""

    any_depth_max: int = 512
    """Nesting of JSON-like values in an update; pycrdt overflows its stack at 26,000."""
    nested_types_max: int = 400_000
    """Shared types in a document; 465,000 of them, one in another, overflow a stack of 120 MB."""

    awareness_bytes_max: int = 4 << 20
    """One awareness message. y-websocket clients repeat what they hear: one who joins 5,000 others
    sends all of them.
    """
    awareness_entries_max: int = 50_000
    """Entries in one awareness message."""
    awareness_state_bytes_max: int = 64 << 10
    """The JSON of one presence."""
    awareness_states_max: int = 64
    """Presence entries that one connection may own in a room."""
    awareness_timeout_seconds: float = 30.0
    """A presence not renewed for this long is removed (y-protocols `outdatedTimeout`)."""
    awareness_tombstones_max: int = 10_000
    """Clocks of removed presences that a room remembers, so that a late message can't revive them.
    """

    pending_bytes_max: int = 4 << 20
    """Updates of one connection that wait for an update which they build upon, or for the document.
    """
    document_pending_bytes_max: int = 16 << 20
    """Updates of all connections of a room that wait for an update which they build upon."""
    all_pending_bytes_max: int = 64 << 20
    """Those of all rooms."""

    outbox_bytes_high: int = 1 << 20
    """Above this a client gets nothing more until it has read; then one diff."""
    outbox_bytes_low: int = 64 << 10
    """Below this a client that lagged is brought up to date."""
    outbox_drain_seconds: float = 30.0
    """A client that reads nothing for this long is closed (1013)."""

    keepalive_seconds: float = 18.0
    """Silence after which a client is sent an empty awareness, at the room's next tick.

    A tick comes every 5 s, so a client hears something every 25 s; y-websocket gives up after 30.
    """

    uploads_bytes_max: int = 256 << 20
    """Large updates of all rooms that are being taken in; further ones are to come later."""
    long_messages_bytes_max: int = 512 << 20
    """Messages of all connections of which a part has come; further ones are to come later."""
    states_bytes_max: int = 256 << 20
    """Encoded documents of all rooms that are kept for who joins next."""

    unsaved_bytes_max: int = 64 << 20
    """Updates not yet in the store; above it the server stops reading from its sockets."""

    def burst_of(self, rate: int) -> int:
        """Return how many messages or handshakes may come at once where a rate is the limit."""
        return self.burst_seconds * rate

    def burst_of_bytes(self, rate: int) -> int:
        """Return how many bytes may come at once: a whole document, and once more after a
        reconnection.
        """
        return max(self.burst_seconds * rate, 2 * self.message_bytes_max)

    @property
    def frames_burst(self) -> int:
        """Messages that a connection may send at once."""
        return self.burst_of(self.frames_per_second)

    @property
    def bytes_burst(self) -> int:
        """Bytes that a connection may send at once."""
        return self.burst_of_bytes(self.bytes_per_second)

    def __post_init__(self) -> None:
        assert self.outbox_bytes_low < self.outbox_bytes_high
        assert self.keepalive_seconds < 20
        assert self.awareness_bytes_max <= self.message_bytes_max
        assert self.pending_bytes_max <= self.unsaved_bytes_max
        assert self.pending_bytes_max <= self.document_pending_bytes_max
        assert self.any_depth_max < 26_000
        assert self.nested_types_max < 465_000
