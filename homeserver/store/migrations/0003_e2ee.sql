-- Identity keys of devices, as they were uploaded.
CREATE TABLE device_keys (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	keys      TEXT NOT NULL, -- JSON object without "unsigned"
	PRIMARY KEY (user_id, device_id)
);

-- A user's master, self-signing and user-signing keys.
CREATE TABLE cross_signing_keys (
	user_id TEXT NOT NULL,
	usage   TEXT NOT NULL, -- 'master', 'self_signing' or 'user_signing'
	public  TEXT NOT NULL, -- unpadded base64
	keys    TEXT NOT NULL, -- JSON object
	PRIMARY KEY (user_id, usage)
);

-- Signatures that came after the key they sign.
CREATE TABLE key_signatures (
	user_id   TEXT NOT NULL, -- whose key is signed
	key_id    TEXT NOT NULL, -- a device ID, or a public master key
	signer    TEXT NOT NULL, -- user
	signed_by TEXT NOT NULL, -- key ID with algorithm
	signature TEXT NOT NULL,
	PRIMARY KEY (user_id, key_id, signer, signed_by)
);
CREATE INDEX key_signatures_by_signer ON key_signatures (signer, signed_by);

-- One-time keys. One that was claimed stays for a while with no content, so
-- that it is not taken again when its upload is repeated.
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

-- What is given out where there are no one-time keys left.
CREATE TABLE fallback_keys (
	user_id   TEXT    NOT NULL,
	device_id TEXT    NOT NULL,
	algorithm TEXT    NOT NULL,
	key_id    TEXT    NOT NULL,
	used      BOOLEAN NOT NULL,
	content   TEXT    NOT NULL, -- JSON
	PRIMARY KEY (user_id, device_id, algorithm)
);

-- When the keys of a user last changed. Observer is '' where everybody may see
-- the change, else the only user who can.
CREATE TABLE device_list_changes (
	user_id  TEXT   NOT NULL,
	observer TEXT   NOT NULL,
	pos      BIGINT NOT NULL,
	PRIMARY KEY (user_id, observer)
) WITHOUT ROWID;
CREATE INDEX device_list_changes_by_pos ON device_list_changes (pos);

-- Messages that wait for a device. num is the order in which they came, pos
-- where a sync finds them; it grows when they are put off to a later sync.
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
CREATE INDEX to_device_by_pos ON to_device (user_id, device_id, pos);
CREATE INDEX to_device_by_num ON to_device (num);

-- sendToDevice requests that were answered.
CREATE TABLE to_device_requests (
	user_id   TEXT   NOT NULL,
	device_id TEXT   NOT NULL,
	type      TEXT   NOT NULL,
	txn       TEXT   NOT NULL,
	at        BIGINT NOT NULL, -- ms
	PRIMARY KEY (user_id, device_id, type, txn)
) WITHOUT ROWID;
CREATE INDEX to_device_requests_by_at ON to_device_requests (at);

-- Versions of users' backups of room keys.
CREATE TABLE key_backups (
	user_id   TEXT   NOT NULL,
	version   BIGINT NOT NULL,
	algorithm TEXT   NOT NULL,
	auth_data TEXT   NOT NULL, -- JSON object
	etag      BIGINT NOT NULL, -- counts changes of the keys
	keys      BIGINT NOT NULL, -- how many there are
	PRIMARY KEY (user_id, version)
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
