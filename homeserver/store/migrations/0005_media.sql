-- What was uploaded under which ID. The bytes lie in the blob store.
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
CREATE INDEX media_by_uploader ON media (uploader, size);
CREATE INDEX media_by_digest ON media (digest);
CREATE INDEX media_by_expires ON media (expires_ts);
CREATE INDEX media_by_use ON media (used_ts);

-- Thumbnails that were made, by what they were made of.
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
