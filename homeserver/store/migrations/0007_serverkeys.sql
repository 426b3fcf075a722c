-- Public keys of other servers, with which they sign requests and events.
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
