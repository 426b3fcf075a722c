-- Files that nobody may fetch: this one, and any with the same content.
CREATE TABLE quarantined_media (
	server   TEXT   NOT NULL,
	media_id TEXT   NOT NULL,
	digest   BLOB,            -- SHA-256 of the content; NULL: it was not here then
	ts       BIGINT NOT NULL, -- milliseconds
	PRIMARY KEY (server, media_id)
);
CREATE INDEX quarantined_media_by_digest ON quarantined_media (digest);

-- Blobs that lost a row which needed them, and are to be deleted unless another
-- one needs them.
CREATE TABLE dropped_blobs (
	digest     BLOB   NOT NULL PRIMARY KEY, -- SHA-256
	dropped_ts BIGINT NOT NULL              -- milliseconds
);
CREATE INDEX dropped_blobs_by_ts ON dropped_blobs (dropped_ts);
