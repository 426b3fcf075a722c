-- Messages for devices on other servers, until these have them.
CREATE TABLE outbox (
	num     BIGINT PRIMARY KEY,
	server  TEXT   NOT NULL,
	type    TEXT   NOT NULL, -- of the EDU
	content TEXT   NOT NULL  -- JSON
);
CREATE INDEX outbox_by_server ON outbox (server, num);
