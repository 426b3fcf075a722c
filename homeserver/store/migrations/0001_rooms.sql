-- The rooms this server knows. current and heads are where the next event goes.
CREATE TABLE rooms (
	num     BIGINT PRIMARY KEY,
	room_id TEXT   NOT NULL UNIQUE,
	version TEXT   NOT NULL,
	current BIGINT NOT NULL, -- root of the current state's tree
	heads   TEXT   NOT NULL, -- forward extremities: numbers of events, with commas between
	last    BIGINT NOT NULL, -- place of the newest event
	joined  BIGINT NOT NULL, -- members
	invited BIGINT NOT NULL,
	open    BOOLEAN NOT NULL -- everybody may join or read it
);

-- A pair of (type, state key) has one number in all rooms.
CREATE TABLE state_keys (
	num       BIGINT PRIMARY KEY,
	type      TEXT   NOT NULL,
	state_key TEXT   NOT NULL,
	UNIQUE (state_key, type)
);

-- Nodes of the immutable state trees, each stored once under its content.
CREATE TABLE state_nodes (
	id   BIGINT PRIMARY KEY,
	data BLOB   NOT NULL
);

-- Every event that is known. The number of an event is the position of the log
-- at which it was stored.
CREATE TABLE events (
	num       BIGINT PRIMARY KEY,
	event_id  BLOB   NOT NULL UNIQUE, -- 32 bytes where it is a hash, else its text
	room      BIGINT NOT NULL,
	pos       BIGINT,          -- place in the room's timeline; NULL: not part of it
	status    BIGINT NOT NULL, -- 0 accepted, 1 soft-failed, 2 rejected
	key       BIGINT,          -- state_keys.num; NULL: not a state event
	sender    TEXT   NOT NULL,
	state     BIGINT NOT NULL, -- root of the state after the event
	current   BIGINT,          -- root of the room's state then, where it is another one
	redaction BIGINT,          -- number of the event that redacted this one
	replaces  BIGINT,          -- number of the state event in whose place this one came
	chain     BIGINT,          -- of the cover index; NULL: in none
	json      BLOB   NOT NULL  -- canonical JSON of the PDU, as package packed writes it
);
CREATE UNIQUE INDEX events_by_place ON events (room, pos) WHERE pos IS NOT NULL;
CREATE INDEX events_by_pos ON events (pos) WHERE pos IS NOT NULL;
CREATE INDEX events_by_state ON events (room, num) WHERE key IS NOT NULL;
CREATE INDEX events_by_chain ON events (chain, num) WHERE chain IS NOT NULL;

-- The cover index of auth chains, as package stateres wants it. A chain is
-- called by the number of its first event. It is made when a fork needs it.
CREATE TABLE cover_links (
	from_chain BIGINT NOT NULL,
	from_num   BIGINT NOT NULL,
	to_chain   BIGINT NOT NULL,
	to_num     BIGINT NOT NULL,
	PRIMARY KEY (from_chain, from_num, to_chain, to_num)
) WITHOUT ROWID;
CREATE INDEX cover_links_back ON cover_links (to_chain, to_num, from_num);
CREATE TABLE cover_leaves (
	chain  BIGINT NOT NULL,
	key    BIGINT NOT NULL, -- state_keys.num
	event  BIGINT NOT NULL,
	to_num BIGINT NOT NULL,
	PRIMARY KEY (chain, key)
) WITHOUT ROWID;
CREATE INDEX cover_leaves_back ON cover_leaves (chain, to_num, event);

-- Up to which event the cover index of a room is made.
CREATE TABLE covered (
	room BIGINT PRIMARY KEY,
	upto BIGINT NOT NULL
);

-- Which events of timelines refer to which event. The target may be unknown.
CREATE TABLE relations (
	target   BLOB   NOT NULL, -- as events.event_id
	pos      BIGINT NOT NULL,
	event    BIGINT NOT NULL,
	rel_type TEXT   NOT NULL,
	PRIMARY KEY (target, pos, event)
) WITHOUT ROWID;

-- threads tells where the newest event of a thread stands.
CREATE TABLE threads (
	room BIGINT NOT NULL,
	root BLOB   NOT NULL, -- as events.event_id
	last BIGINT NOT NULL,
	PRIMARY KEY (room, root)
);
CREATE INDEX threads_by_last ON threads (room, last);

-- Redactions whose target has not been seen.
CREATE TABLE redactions (
	target TEXT   NOT NULL,
	event  BIGINT NOT NULL,
	PRIMARY KEY (target, event)
) WITHOUT ROWID;

-- What each user is in each room now. Follows from the current state.
CREATE TABLE memberships (
	user_id    TEXT    NOT NULL,
	room       BIGINT  NOT NULL,
	membership TEXT    NOT NULL,
	event      BIGINT  NOT NULL,
	pos        BIGINT  NOT NULL, -- of the log, when it came to that
	local      BOOLEAN NOT NULL, -- a user of this server
	forgotten  BOOLEAN NOT NULL,
	PRIMARY KEY (user_id, room)
) WITHOUT ROWID;
CREATE INDEX memberships_by_room ON memberships (room, membership, event);

-- How many members each server has in a room.
CREATE TABLE room_servers (
	room   BIGINT NOT NULL,
	server TEXT   NOT NULL,
	joined BIGINT NOT NULL,
	PRIMARY KEY (room, server)
) WITHOUT ROWID;
CREATE INDEX room_servers_by_server ON room_servers (server);

-- Events of the timeline before which others are missing here.
CREATE TABLE gaps (
	room  BIGINT NOT NULL,
	event BIGINT NOT NULL,
	PRIMARY KEY (room, event)
) WITHOUT ROWID;

-- What an invitation or a knock said of a room that this server is not in.
CREATE TABLE stripped (
	room    BIGINT NOT NULL,
	user_id TEXT   NOT NULL,
	events  TEXT   NOT NULL, -- a JSON array
	PRIMARY KEY (room, user_id)
);

-- Requests that were answered, so that a repeated one gets the same answer.
CREATE TABLE requests (
	user_id  TEXT   NOT NULL,
	device   TEXT   NOT NULL,
	endpoint TEXT   NOT NULL,
	txn      TEXT   NOT NULL,
	event    BIGINT NOT NULL,
	at       BIGINT NOT NULL, -- ms
	PRIMARY KEY (user_id, device, endpoint, txn)
) WITHOUT ROWID;
CREATE INDEX requests_by_event ON requests (event);
CREATE INDEX requests_by_at ON requests (at);

-- Names of rooms on this server.
CREATE TABLE aliases (
	alias   TEXT   PRIMARY KEY,
	room    BIGINT NOT NULL,
	creator TEXT   NOT NULL
);
CREATE INDEX aliases_by_room ON aliases (room);

-- Rooms in the public directory. list is '' for the server's own one, else that
-- of an appservice and network.
CREATE TABLE published (
	list TEXT   NOT NULL,
	room BIGINT NOT NULL,
	PRIMARY KEY (list, room)
);

-- Places of a room's timeline that are kept free behind its creation, for the
-- history that an appservice brings: those behind since and not behind upto. They
-- are filled from the end.
CREATE TABLE pasts (
	room  BIGINT PRIMARY KEY,
	since BIGINT NOT NULL,
	upto  BIGINT NOT NULL
);
