-- Local users. A user is never deleted: a deactivated one keeps the name.
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

-- Access tokens, each with the refresh token it was given with. Only SHA-256
-- sums are kept. A pair that came from a refresh names the pair it replaces,
-- which lives on until the new one is used for the first time.
CREATE TABLE tokens (
	access     BLOB   NOT NULL PRIMARY KEY,
	refresh    BLOB,
	user_id    TEXT   NOT NULL,
	device_id  TEXT   NOT NULL,
	expires_ts BIGINT NOT NULL, -- of the access token; 0: never
	replaces   BLOB,            -- access of the older pair
	created_ts BIGINT NOT NULL
);
CREATE UNIQUE INDEX tokens_by_refresh ON tokens (refresh);
CREATE INDEX tokens_by_device ON tokens (user_id, device_id);
CREATE INDEX tokens_by_replaces ON tokens (replaces);

-- Tokens of one use that log another device in.
CREATE TABLE login_tokens (
	token      BLOB   NOT NULL PRIMARY KEY, -- SHA-256
	user_id    TEXT   NOT NULL,
	expires_ts BIGINT NOT NULL
);

CREATE TABLE registration_tokens (
	token        TEXT    NOT NULL PRIMARY KEY,
	uses_allowed BIGINT,           -- NULL: any number
	completed    BIGINT  NOT NULL, -- accounts made with it
	expires_ts   BIGINT  NOT NULL, -- 0: never
	admin        BOOLEAN NOT NULL, -- its accounts are administrators
	created_ts   BIGINT  NOT NULL
);

-- User-interactive authentication that has begun.
CREATE TABLE uia_sessions (
	session    TEXT   NOT NULL PRIMARY KEY,
	operation  TEXT   NOT NULL, -- what may be done with it, and to what
	user_id    TEXT   NOT NULL, -- '' at registration
	completed  TEXT   NOT NULL, -- JSON object: stage to what it yielded
	expires_ts BIGINT NOT NULL
);
CREATE INDEX uia_sessions_by_expires ON uia_sessions (expires_ts);

-- displayname and avatar_url are fields like any other.
CREATE TABLE profile_fields (
	user_id TEXT NOT NULL,
	name    TEXT NOT NULL,
	value   TEXT NOT NULL, -- JSON
	PRIMARY KEY (user_id, name)
);

-- Settings that a user's clients share. room_id is '' for global ones, because
-- NULLs are distinct in a unique key.
CREATE TABLE account_data (
	user_id TEXT   NOT NULL,
	room_id TEXT   NOT NULL,
	type    TEXT   NOT NULL,
	content TEXT   NOT NULL, -- JSON object, kept as the client sent it
	pos     BIGINT NOT NULL,
	PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_by_pos ON account_data (user_id, pos);

CREATE TABLE filters (
	user_id   TEXT   NOT NULL,
	filter_id BIGINT NOT NULL, -- counts from 1 for each user
	sum       BLOB   NOT NULL, -- SHA-256 of filter, so that the same one is stored once
	filter    TEXT   NOT NULL, -- JSON object, kept as the client sent it
	PRIMARY KEY (user_id, filter_id)
);
CREATE UNIQUE INDEX filters_by_sum ON filters (user_id, sum);

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
