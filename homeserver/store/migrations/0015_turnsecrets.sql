-- What signs the credentials of our TURN server: the newest secret, and the one
-- before for as long as credentials last.
CREATE TABLE turn_secrets (
	secret  BLOB   NOT NULL PRIMARY KEY,
	made_ts BIGINT NOT NULL -- milliseconds
);
