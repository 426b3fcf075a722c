-- The room in which the server itself speaks with a user.
CREATE TABLE notice_rooms (
	user_id TEXT NOT NULL PRIMARY KEY,
	room_id TEXT NOT NULL
);
CREATE UNIQUE INDEX notice_rooms_by_room ON notice_rooms (room_id);

-- Devices that take messages while their user has no other: what the next one
-- needs to wake them up. They are in devices, device_keys and so on, too.
CREATE TABLE dehydrated_devices (
	user_id   TEXT NOT NULL PRIMARY KEY,
	device_id TEXT NOT NULL,
	data      TEXT NOT NULL -- JSON object
);
