-- Up to which event users have read. thread is '' for a receipt for the whole
-- room.
CREATE TABLE receipts (
	room     BIGINT NOT NULL,
	user_id  TEXT   NOT NULL,
	type     TEXT   NOT NULL, -- 'm.read' or 'm.read.private'
	thread   TEXT   NOT NULL,
	event_id TEXT   NOT NULL,
	place    BIGINT NOT NULL, -- of the event in the room's timeline
	ts       BIGINT NOT NULL, -- ms
	pos      BIGINT NOT NULL,
	PRIMARY KEY (room, user_id, type, thread)
) WITHOUT ROWID;
CREATE INDEX receipts_by_pos ON receipts (room, pos);
CREATE INDEX receipts_by_log ON receipts (pos);

CREATE TABLE presence (
	user_id     TEXT   NOT NULL PRIMARY KEY,
	presence    TEXT   NOT NULL, -- 'online', 'unavailable' or 'offline'
	status_msg  TEXT   NOT NULL, -- '' for none
	last_active BIGINT NOT NULL, -- ms; 0: never
	pos         BIGINT NOT NULL
);
CREATE INDEX presence_by_pos ON presence (pos);
