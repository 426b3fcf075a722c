-- Events that clients want sent later, and for a while what became of them.
CREATE TABLE delayed_events (
	delay_id   TEXT   NOT NULL PRIMARY KEY,
	user_id    TEXT   NOT NULL,
	device_id  TEXT   NOT NULL,
	txn        TEXT   NOT NULL, -- of the request; '' where there was none
	room_id    TEXT   NOT NULL,
	type       TEXT   NOT NULL,
	state_key  TEXT,            -- NULL: not a state event
	content    TEXT   NOT NULL, -- JSON object
	at         BIGINT NOT NULL, -- time (ms) that an appservice gives the event; 0: when it is sent
	delay      BIGINT NOT NULL, -- ms
	since_ts   BIGINT NOT NULL, -- when the delay began, ms
	final_ts   BIGINT NOT NULL, -- when it was sent or given up, ms; 0: not yet
	event_id   TEXT   NOT NULL, -- '' unless it was sent
	error      TEXT   NOT NULL  -- JSON; '' unless one kept it from being sent
);
CREATE INDEX delayed_events_by_user ON delayed_events (user_id, final_ts);
CREATE INDEX delayed_events_by_due ON delayed_events (final_ts, since_ts);
