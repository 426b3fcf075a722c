-- What users find inappropriate, for the administrators. A user's second report
-- of the same replaces the first.
CREATE TABLE reports (
	reporter TEXT   NOT NULL,
	room_id  TEXT   NOT NULL, -- '' for a user
	event_id TEXT   NOT NULL, -- '' for a user or a whole room
	user_id  TEXT   NOT NULL, -- who is reported: the event's sender, '' for a room
	reason   TEXT   NOT NULL,
	ts       BIGINT NOT NULL, -- milliseconds
	PRIMARY KEY (reporter, room_id, event_id, user_id)
);
CREATE INDEX reports_by_ts ON reports (ts);
