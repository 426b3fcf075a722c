-- Position of the log when the devices of a user were last asked for; 0: never.
-- The user's server tells of changes only while there are common rooms.
ALTER TABLE remote_device_lists ADD COLUMN pos BIGINT NOT NULL DEFAULT 0;

-- Files of other servers that were fetched. The bytes lie in the blob store.
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
