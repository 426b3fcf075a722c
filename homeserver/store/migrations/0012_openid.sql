-- Tokens by which a user proves to somebody else who it is.
CREATE TABLE openid_tokens (
	token      BLOB   NOT NULL PRIMARY KEY, -- SHA-256
	user_id    TEXT   NOT NULL,
	expires_ts BIGINT NOT NULL -- milliseconds
);
CREATE INDEX openid_tokens_by_expiry ON openid_tokens (expires_ts);
