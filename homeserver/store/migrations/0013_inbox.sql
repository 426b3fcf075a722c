-- Events of other servers that wait for what cannot be had just now: earlier
-- events, or the key by which they are signed.
CREATE TABLE inbox (
	num         BIGINT NOT NULL PRIMARY KEY, -- order in which they came
	room_id     TEXT   NOT NULL,
	event_id    TEXT   NOT NULL,
	origin      TEXT   NOT NULL, -- the server that sent it
	json        TEXT   NOT NULL, -- as it came
	received_ts BIGINT NOT NULL  -- milliseconds
);
CREATE UNIQUE INDEX inbox_by_event ON inbox (event_id, origin);
CREATE INDEX inbox_by_room ON inbox (room_id, num);
CREATE INDEX inbox_by_origin ON inbox (origin, num);
CREATE INDEX inbox_by_age ON inbox (received_ts);
