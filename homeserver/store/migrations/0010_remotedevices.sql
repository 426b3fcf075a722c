-- What is known of the devices of users of other servers.
CREATE TABLE remote_device_lists (
	user_id   TEXT    NOT NULL PRIMARY KEY,
	stream_id BIGINT  NOT NULL, -- of the newest update, as the user's server counts
	stale     BOOLEAN NOT NULL  -- updates were missed: to be asked for again
);

CREATE TABLE remote_devices (
	user_id      TEXT NOT NULL,
	device_id    TEXT NOT NULL,
	keys         TEXT NOT NULL, -- JSON object without "unsigned"; '': none
	display_name TEXT NOT NULL,
	PRIMARY KEY (user_id, device_id)
);
