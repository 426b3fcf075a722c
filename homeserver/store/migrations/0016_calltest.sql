-- One-time links to the page of the call test.
CREATE TABLE call_test_links (
	link       BLOB   NOT NULL PRIMARY KEY, -- SHA-256 of it
	expires_ts BIGINT NOT NULL              -- milliseconds
);
