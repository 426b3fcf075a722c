CREATE TABLE account_data (
	user_id TEXT   NOT NULL,
	room_id TEXT   NOT NULL,
	type    TEXT   NOT NULL,
	content TEXT   NOT NULL, -- JSON object, kept as the client sent it
	pos     BIGINT NOT NULL,
	PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_by_pos ON account_data (user_id, pos);
CREATE TABLE aliases (
	alias   TEXT   PRIMARY KEY,
	room    BIGINT NOT NULL,
	creator TEXT   NOT NULL
);
CREATE INDEX aliases_by_room ON aliases (room);
CREATE TABLE appservice_senders (
	appservice TEXT   NOT NULL PRIMARY KEY, -- ID of the registration
	pos        BIGINT NOT NULL,             -- of the log: everything up to it was told
	txn        BIGINT NOT NULL,             -- number of the newest transaction
	upto       BIGINT NOT NULL,             -- pos when the transaction under way is through
	body       BLOB                         -- the transaction under way; NULL: none
);
CREATE TABLE backed_up_keys (
	user_id             TEXT    NOT NULL,
	version             BIGINT  NOT NULL,
	room_id             TEXT    NOT NULL,
	session_id          TEXT    NOT NULL,
	first_message_index BIGINT  NOT NULL,
	forwarded_count     BIGINT  NOT NULL,
	is_verified         BOOLEAN NOT NULL,
	session_data        TEXT    NOT NULL, -- JSON object
	PRIMARY KEY (user_id, version, room_id, session_id)
);
CREATE TABLE call_test_links (
	link       BLOB   NOT NULL PRIMARY KEY, -- SHA-256 of it
	expires_ts BIGINT NOT NULL              -- milliseconds
);
CREATE TABLE counters (
	name TEXT   NOT NULL PRIMARY KEY,
	n    BIGINT NOT NULL
);
CREATE TABLE cover_leaves (
	chain  BIGINT NOT NULL,
	key    BIGINT NOT NULL, -- state_keys.num
	event  BIGINT NOT NULL,
	to_num BIGINT NOT NULL,
	PRIMARY KEY (chain, key)
) WITHOUT ROWID;
CREATE INDEX cover_leaves_back ON cover_leaves (chain, to_num, event);
CREATE TABLE cover_links (
	from_chain BIGINT NOT NULL,
	from_num   BIGINT NOT NULL,
	to_chain   BIGINT NOT NULL,
	to_num     BIGINT NOT NULL,
	PRIMARY KEY (from_chain, from_num, to_chain, to_num)
) WITHOUT ROWID;
CREATE INDEX cover_links_back ON cover_links (to_chain, to_num, from_num);
CREATE TABLE covered (
	room INTEGER PRIMARY KEY,
	upto BIGINT NOT NULL
);
CREATE TABLE cross_signing_keys (
	user_id TEXT NOT NULL,
	usage   TEXT NOT NULL, -- 'master', 'self_signing' or 'user_signing'
	public  TEXT NOT NULL, -- unpadded base64
	keys    TEXT NOT NULL, -- JSON object
	PRIMARY KEY (user_id, usage)
);
CREATE TABLE dehydrated_devices (
	user_id   TEXT NOT NULL PRIMARY KEY,
	device_id TEXT NOT NULL,
	data      TEXT NOT NULL -- JSON object
);
CREATE TABLE delayed_events (
	delay_id   TEXT   NOT NULL PRIMARY KEY,
	user_id    TEXT   NOT NULL,
	device_id  TEXT   NOT NULL,
	txn        TEXT   NOT NULL, -- of the request; '' where there was none
	room_id    TEXT   NOT NULL,
	type       TEXT   NOT NULL,
	state_key  TEXT,            -- NULL: not a state event
	content    TEXT   NOT NULL, -- JSON object
	at         BIGINT NOT NULL, -- time (ms) that an appservice gives the event; 0: when it is sent
	delay      BIGINT NOT NULL, -- ms
	since_ts   BIGINT NOT NULL, -- when the delay began, ms
	final_ts   BIGINT NOT NULL, -- when it was sent or given up, ms; 0: not yet
	event_id   TEXT   NOT NULL, -- '' unless it was sent
	error      TEXT   NOT NULL  -- JSON; '' unless one kept it from being sent
);
CREATE INDEX delayed_events_by_due ON delayed_events (final_ts, since_ts);
CREATE INDEX delayed_events_by_user ON delayed_events (user_id, final_ts);
CREATE TABLE destinations (
	server     TEXT   NOT NULL PRIMARY KEY,
	failures   BIGINT NOT NULL, -- in a row, since the server was last reached
	failing_ts BIGINT NOT NULL, -- when the first of them was, milliseconds; 0: none
	retry_ts   BIGINT NOT NULL, -- not to be asked before, milliseconds
	success_ts BIGINT NOT NULL, -- when it was last reached, to about an hour, milliseconds; 0: never
	pos        BIGINT NOT NULL  -- of the log: everything up to it was sent; 0: sending has not begun
);
CREATE TABLE device_keys (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	keys      TEXT NOT NULL, -- JSON object without "unsigned"
	PRIMARY KEY (user_id, device_id)
);
CREATE TABLE device_list_changes (
	user_id  TEXT   NOT NULL,
	observer TEXT   NOT NULL,
	pos      BIGINT NOT NULL,
	PRIMARY KEY (user_id, observer)
) WITHOUT ROWID;
CREATE INDEX device_list_changes_by_pos ON device_list_changes (pos);
CREATE TABLE devices (
	user_id        TEXT   NOT NULL,
	device_id      TEXT   NOT NULL,
	display_name   TEXT   NOT NULL, -- '' where none was given
	created_ts     BIGINT NOT NULL,
	last_seen_ts   BIGINT NOT NULL, -- 0: never
	last_seen_ip   TEXT   NOT NULL,
	last_seen_agent TEXT  NOT NULL,
	PRIMARY KEY (user_id, device_id)
);
CREATE TABLE dropped_blobs (
	digest     BLOB   NOT NULL PRIMARY KEY, -- SHA-256
	dropped_ts BIGINT NOT NULL              -- milliseconds
);
CREATE INDEX dropped_blobs_by_ts ON dropped_blobs (dropped_ts);
CREATE TABLE events (
	num       INTEGER PRIMARY KEY,
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
CREATE INDEX events_by_chain ON events (chain, num) WHERE chain IS NOT NULL;
CREATE UNIQUE INDEX events_by_place ON events (room, pos) WHERE pos IS NOT NULL;
CREATE INDEX events_by_pos ON events (pos) WHERE pos IS NOT NULL;
CREATE INDEX events_by_state ON events (room, num) WHERE key IS NOT NULL;
CREATE TABLE fallback_keys (
	user_id   TEXT    NOT NULL,
	device_id TEXT    NOT NULL,
	algorithm TEXT    NOT NULL,
	key_id    TEXT    NOT NULL,
	used      BOOLEAN NOT NULL,
	content   TEXT    NOT NULL, -- JSON
	PRIMARY KEY (user_id, device_id, algorithm)
);
CREATE TABLE filters (
	user_id   TEXT   NOT NULL,
	filter_id BIGINT NOT NULL, -- counts from 1 for each user
	sum       BLOB   NOT NULL, -- SHA-256 of filter, so that the same one is stored once
	filter    TEXT   NOT NULL, -- JSON object, kept as the client sent it
	PRIMARY KEY (user_id, filter_id)
);
CREATE UNIQUE INDEX filters_by_sum ON filters (user_id, sum);
CREATE TABLE gaps (
	room  BIGINT NOT NULL,
	event BIGINT NOT NULL,
	PRIMARY KEY (room, event)
) WITHOUT ROWID;
CREATE TABLE inbox (
	num         BIGINT NOT NULL PRIMARY KEY, -- order in which they came
	room_id     TEXT   NOT NULL,
	event_id    TEXT   NOT NULL,
	origin      TEXT   NOT NULL, -- the server that sent it
	json        TEXT   NOT NULL, -- as it came
	received_ts BIGINT NOT NULL  -- milliseconds
);
CREATE INDEX inbox_by_age ON inbox (received_ts);
CREATE UNIQUE INDEX inbox_by_event ON inbox (event_id, origin);
CREATE INDEX inbox_by_origin ON inbox (origin, num);
CREATE INDEX inbox_by_room ON inbox (room_id, num);
CREATE TABLE key_backups (
	user_id   TEXT   NOT NULL,
	version   BIGINT NOT NULL,
	algorithm TEXT   NOT NULL,
	auth_data TEXT   NOT NULL, -- JSON object
	etag      BIGINT NOT NULL, -- counts changes of the keys
	keys      BIGINT NOT NULL, -- how many there are
	PRIMARY KEY (user_id, version)
);
CREATE TABLE key_signatures (
	user_id   TEXT NOT NULL, -- whose key is signed
	key_id    TEXT NOT NULL, -- a device ID, or a public master key
	signer    TEXT NOT NULL, -- user
	signed_by TEXT NOT NULL, -- key ID with algorithm
	signature TEXT NOT NULL,
	PRIMARY KEY (user_id, key_id, signer, signed_by)
);
CREATE INDEX key_signatures_by_signer ON key_signatures (signer, signed_by);
CREATE TABLE login_tokens (
	token      BLOB   NOT NULL PRIMARY KEY, -- SHA-256
	user_id    TEXT   NOT NULL,
	expires_ts BIGINT NOT NULL
);
CREATE TABLE media (
	media_id   TEXT   NOT NULL PRIMARY KEY,
	uploader   TEXT   NOT NULL,
	digest     BLOB,            -- SHA-256 of the content; NULL: not uploaded yet
	size       BIGINT NOT NULL, -- bytes
	type       TEXT   NOT NULL, -- Content-Type as the client gave it
	name       TEXT   NOT NULL, -- of the file; '' where none was given
	created_ts BIGINT NOT NULL, -- milliseconds
	expires_ts BIGINT NOT NULL, -- until when an ID waits for its content, milliseconds; 0: it has it
	used_ts    BIGINT NOT NULL  -- when somebody last asked for it, or it was made, to about a day, milliseconds
);
CREATE INDEX media_by_digest ON media (digest);
CREATE INDEX media_by_expires ON media (expires_ts);
CREATE INDEX media_by_uploader ON media (uploader, size);
CREATE INDEX media_by_use ON media (used_ts);
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
CREATE TABLE migrations (
	number BIGINT NOT NULL PRIMARY KEY,
	name   TEXT   NOT NULL
);
CREATE TABLE notice_rooms (
	user_id TEXT NOT NULL PRIMARY KEY,
	room_id TEXT NOT NULL
);
CREATE UNIQUE INDEX notice_rooms_by_room ON notice_rooms (room_id);
CREATE TABLE one_time_keys (
	user_id   TEXT   NOT NULL,
	device_id TEXT   NOT NULL,
	algorithm TEXT   NOT NULL,
	key_id    TEXT   NOT NULL,
	num       BIGINT NOT NULL, -- order of upload
	claimed   BIGINT NOT NULL, -- when, ms; 0: not yet
	content   TEXT   NOT NULL, -- JSON
	PRIMARY KEY (user_id, device_id, algorithm, key_id)
);
CREATE INDEX one_time_keys_by_num ON one_time_keys (user_id, device_id, algorithm, claimed, num);
CREATE TABLE openid_tokens (
	token      BLOB   NOT NULL PRIMARY KEY, -- SHA-256
	user_id    TEXT   NOT NULL,
	expires_ts BIGINT NOT NULL -- milliseconds
);
CREATE INDEX openid_tokens_by_expiry ON openid_tokens (expires_ts);
CREATE TABLE outbox (
	num     INTEGER PRIMARY KEY,
	server  TEXT   NOT NULL,
	type    TEXT   NOT NULL, -- of the EDU
	content TEXT   NOT NULL  -- JSON
);
CREATE INDEX outbox_by_server ON outbox (server, num);
CREATE TABLE pasts (
	room  INTEGER PRIMARY KEY,
	since BIGINT NOT NULL,
	upto  BIGINT NOT NULL
);
CREATE TABLE presence (
	user_id     TEXT   NOT NULL PRIMARY KEY,
	presence    TEXT   NOT NULL, -- 'online', 'unavailable' or 'offline'
	status_msg  TEXT   NOT NULL, -- '' for none
	last_active BIGINT NOT NULL, -- ms; 0: never
	pos         BIGINT NOT NULL
);
CREATE INDEX presence_by_pos ON presence (pos);
CREATE TABLE profile_fields (
	user_id TEXT NOT NULL,
	name    TEXT NOT NULL,
	value   TEXT NOT NULL, -- JSON
	PRIMARY KEY (user_id, name)
);
CREATE TABLE published (
	list TEXT   NOT NULL,
	room BIGINT NOT NULL,
	PRIMARY KEY (list, room)
);
CREATE TABLE pushers (
	user_id      TEXT   NOT NULL,
	app_id       TEXT   NOT NULL,
	pushkey      TEXT   NOT NULL,
	device_id    TEXT   NOT NULL, -- whose logout ends the pusher; '' for none
	kind         TEXT   NOT NULL,
	app_name     TEXT   NOT NULL,
	device_name  TEXT   NOT NULL,
	profile_tag  TEXT   NOT NULL,
	lang         TEXT   NOT NULL,
	data         TEXT   NOT NULL, -- JSON object
	created_ts   BIGINT NOT NULL,
	pos          BIGINT NOT NULL, -- of the log: everything up to it was told
	pauses       TEXT   NOT NULL, -- JSON: when one that sends e-mail may tell of a room again; '' for nothing
	PRIMARY KEY (user_id, app_id, pushkey)
);
CREATE INDEX pushers_by_key ON pushers (app_id, pushkey);
CREATE TABLE quarantined_media (
	server   TEXT   NOT NULL,
	media_id TEXT   NOT NULL,
	digest   BLOB,            -- SHA-256 of the content; NULL: it was not here then
	ts       BIGINT NOT NULL, -- milliseconds
	PRIMARY KEY (server, media_id)
);
CREATE INDEX quarantined_media_by_digest ON quarantined_media (digest);
CREATE TABLE receipts (
	room     BIGINT NOT NULL,
	user_id  TEXT   NOT NULL,
	type     TEXT   NOT NULL, -- 'm.read' or 'm.read.private'
	thread   TEXT   NOT NULL,
	event_id TEXT   NOT NULL,
	place    BIGINT NOT NULL, -- of the event in the room's timeline
	ts       BIGINT NOT NULL, -- ms
	pos      BIGINT NOT NULL,
	PRIMARY KEY (room, user_id, type, thread)
) WITHOUT ROWID;
CREATE INDEX receipts_by_log ON receipts (pos);
CREATE INDEX receipts_by_pos ON receipts (room, pos);
CREATE TABLE redactions (
	target TEXT   NOT NULL,
	event  BIGINT NOT NULL,
	PRIMARY KEY (target, event)
) WITHOUT ROWID;
CREATE TABLE registration_tokens (
	token        TEXT    NOT NULL PRIMARY KEY,
	uses_allowed BIGINT,           -- NULL: any number
	completed    BIGINT  NOT NULL, -- accounts made with it
	expires_ts   BIGINT  NOT NULL, -- 0: never
	admin        BOOLEAN NOT NULL, -- its accounts are administrators
	created_ts   BIGINT  NOT NULL
);
CREATE TABLE relations (
	target   BLOB   NOT NULL, -- as events.event_id
	pos      BIGINT NOT NULL,
	event    BIGINT NOT NULL,
	rel_type TEXT   NOT NULL,
	PRIMARY KEY (target, pos, event)
) WITHOUT ROWID;
CREATE TABLE remote_device_lists (
	user_id   TEXT    NOT NULL PRIMARY KEY,
	stream_id BIGINT  NOT NULL, -- of the newest update, as the user's server counts
	stale     BOOLEAN NOT NULL  -- updates were missed: to be asked for again
, pos BIGINT NOT NULL DEFAULT 0);
CREATE TABLE remote_devices (
	user_id      TEXT NOT NULL,
	device_id    TEXT NOT NULL,
	keys         TEXT NOT NULL, -- JSON object without "unsigned"; '': none
	display_name TEXT NOT NULL,
	PRIMARY KEY (user_id, device_id)
);
CREATE TABLE remote_media (
	server     TEXT   NOT NULL,
	media_id   TEXT   NOT NULL,
	digest     BLOB   NOT NULL, -- SHA-256 of the content
	size       BIGINT NOT NULL, -- bytes
	type       TEXT   NOT NULL, -- Content-Type as it may be sent again
	name       TEXT   NOT NULL, -- of the file; '' where none was given
	fetched_ts BIGINT NOT NULL, -- milliseconds
	used_ts    BIGINT NOT NULL, -- when somebody last asked for it, to about a day, milliseconds
	PRIMARY KEY (server, media_id)
);
CREATE INDEX remote_media_by_digest ON remote_media (digest);
CREATE INDEX remote_media_by_use ON remote_media (used_ts, size);
CREATE TABLE reports (
	reporter TEXT   NOT NULL,
	room_id  TEXT   NOT NULL, -- '' for a user
	event_id TEXT   NOT NULL, -- '' for a user or a whole room
	user_id  TEXT   NOT NULL, -- who is reported: the event's sender, '' for a room
	reason   TEXT   NOT NULL,
	ts       BIGINT NOT NULL, -- milliseconds
	PRIMARY KEY (reporter, room_id, event_id, user_id)
);
CREATE INDEX reports_by_ts ON reports (ts);
CREATE TABLE requests (
	user_id  TEXT   NOT NULL,
	device   TEXT   NOT NULL,
	endpoint TEXT   NOT NULL,
	txn      TEXT   NOT NULL,
	event    BIGINT NOT NULL,
	at       BIGINT NOT NULL, -- ms
	PRIMARY KEY (user_id, device, endpoint, txn)
) WITHOUT ROWID;
CREATE INDEX requests_by_at ON requests (at);
CREATE INDEX requests_by_event ON requests (event);
CREATE TABLE room_servers (
	room   BIGINT NOT NULL,
	server TEXT   NOT NULL,
	joined BIGINT NOT NULL,
	PRIMARY KEY (room, server)
) WITHOUT ROWID;
CREATE INDEX room_servers_by_server ON room_servers (server);
CREATE TABLE rooms (
	num     INTEGER PRIMARY KEY,
	room_id TEXT   NOT NULL UNIQUE,
	version TEXT   NOT NULL,
	current BIGINT NOT NULL, -- root of the current state's tree
	heads   TEXT   NOT NULL, -- forward extremities: numbers of events, with commas between
	last    BIGINT NOT NULL, -- place of the newest event
	joined  BIGINT NOT NULL, -- members
	invited BIGINT NOT NULL,
	open    BOOLEAN NOT NULL -- everybody may join or read it
);
CREATE VIRTUAL TABLE search USING fts5 (words, content = '', contentless_delete = 1, detail = none, tokenize = "ascii tokenchars '!#'");
CREATE TABLE search_again (
	event INTEGER PRIMARY KEY
);
CREATE TABLE 'search_config'(k PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE 'search_data'(id INTEGER PRIMARY KEY, block BLOB);
CREATE TABLE 'search_docsize'(id INTEGER PRIMARY KEY, sz BLOB, origin INTEGER);
CREATE TABLE 'search_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;
CREATE TABLE search_span (
	one   INTEGER PRIMARY KEY, -- 1
	below BIGINT NOT NULL,
	above BIGINT NOT NULL
);
CREATE TABLE server_keys (
	server         TEXT   NOT NULL,
	key_id         TEXT   NOT NULL, -- 'ed25519:…'
	public         BLOB   NOT NULL, -- 32 bytes
	valid_until_ts BIGINT NOT NULL, -- signatures up to then are good, milliseconds; what the server said, bounded
	expired_ts     BIGINT NOT NULL, -- when the server stopped using the key, milliseconds; 0: it has not
	fetched_ts     BIGINT NOT NULL, -- milliseconds
	answer         BLOB,            -- the signed JSON that has the key as a current one; NULL: never seen
	PRIMARY KEY (server, key_id)
);
CREATE TABLE state_keys (
	num       INTEGER PRIMARY KEY,
	type      TEXT   NOT NULL,
	state_key TEXT   NOT NULL,
	UNIQUE (state_key, type)
);
CREATE TABLE state_nodes (
	id   INTEGER PRIMARY KEY,
	data BLOB   NOT NULL
);
CREATE TABLE streams (
	name TEXT   NOT NULL PRIMARY KEY,
	pos  BIGINT NOT NULL
);
CREATE TABLE stripped (
	room    BIGINT NOT NULL,
	user_id TEXT   NOT NULL,
	events  TEXT   NOT NULL, -- a JSON array
	PRIMARY KEY (room, user_id)
);
CREATE TABLE threads (
	room BIGINT NOT NULL,
	root BLOB   NOT NULL, -- as events.event_id
	last BIGINT NOT NULL,
	PRIMARY KEY (room, root)
);
CREATE INDEX threads_by_last ON threads (room, last);
CREATE TABLE threepids (
	medium       TEXT   NOT NULL, -- 'email'
	address      TEXT   NOT NULL, -- in small letters
	user_id      TEXT   NOT NULL,
	validated_ts BIGINT NOT NULL, -- ms
	added_ts     BIGINT NOT NULL, -- ms
	PRIMARY KEY (medium, address)
);
CREATE INDEX threepids_by_user ON threepids (user_id, added_ts);
CREATE TABLE thumbnails (
	original BLOB   NOT NULL, -- SHA-256
	width    BIGINT NOT NULL, -- of the frame that was asked for
	height   BIGINT NOT NULL,
	method   TEXT   NOT NULL, -- 'scale' or 'crop'
	animated BOOLEAN NOT NULL, -- may move
	digest   BLOB   NOT NULL, -- SHA-256 of the thumbnail
	size     BIGINT NOT NULL, -- bytes
	type     TEXT   NOT NULL,
	PRIMARY KEY (original, width, height, method, animated)
);
CREATE INDEX thumbnails_by_digest ON thumbnails (digest);
CREATE TABLE to_device (
	user_id   TEXT   NOT NULL,
	device_id TEXT   NOT NULL,
	num       BIGINT NOT NULL,
	pos       BIGINT NOT NULL,
	sender    TEXT   NOT NULL,
	type      TEXT   NOT NULL,
	content   TEXT   NOT NULL, -- JSON object
	PRIMARY KEY (user_id, device_id, num)
);
CREATE INDEX to_device_by_num ON to_device (num);
CREATE INDEX to_device_by_pos ON to_device (user_id, device_id, pos);
CREATE TABLE to_device_requests (
	user_id   TEXT   NOT NULL,
	device_id TEXT   NOT NULL,
	type      TEXT   NOT NULL,
	txn       TEXT   NOT NULL,
	at        BIGINT NOT NULL, -- ms
	PRIMARY KEY (user_id, device_id, type, txn)
) WITHOUT ROWID;
CREATE INDEX to_device_requests_by_at ON to_device_requests (at);
CREATE TABLE tokens (
	access     BLOB   NOT NULL PRIMARY KEY,
	refresh    BLOB,
	user_id    TEXT   NOT NULL,
	device_id  TEXT   NOT NULL,
	expires_ts BIGINT NOT NULL, -- of the access token; 0: never
	replaces   BLOB,            -- access of the older pair
	created_ts BIGINT NOT NULL
);
CREATE INDEX tokens_by_device ON tokens (user_id, device_id);
CREATE UNIQUE INDEX tokens_by_refresh ON tokens (refresh);
CREATE INDEX tokens_by_replaces ON tokens (replaces);
CREATE TABLE turn_secrets (
	secret  BLOB   NOT NULL PRIMARY KEY,
	made_ts BIGINT NOT NULL -- milliseconds
);
CREATE TABLE uia_sessions (
	session    TEXT   NOT NULL PRIMARY KEY,
	operation  TEXT   NOT NULL, -- what may be done with it, and to what
	user_id    TEXT   NOT NULL, -- '' at registration
	completed  TEXT   NOT NULL, -- JSON object: stage to what it yielded
	expires_ts BIGINT NOT NULL
);
CREATE INDEX uia_sessions_by_expires ON uia_sessions (expires_ts);
CREATE TABLE users (
	user_id     TEXT    NOT NULL PRIMARY KEY,
	password    TEXT    NOT NULL, -- PHC string; '' where nobody can log in by password
	kind        TEXT    NOT NULL, -- '', 'guest' or 'appservice'
	appservice  TEXT    NOT NULL, -- ID of the registration that made the user, or ''
	admin       BOOLEAN NOT NULL,
	deactivated BOOLEAN NOT NULL,
	erased      BOOLEAN NOT NULL,
	locked      BOOLEAN NOT NULL,
	suspended   BOOLEAN NOT NULL,
	created_ts  BIGINT  NOT NULL  -- milliseconds
);
CREATE INDEX users_by_created ON users (created_ts, user_id);
