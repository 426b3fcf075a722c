-- Other servers as we reach them.
CREATE TABLE destinations (
	server     TEXT   NOT NULL PRIMARY KEY,
	failures   BIGINT NOT NULL, -- in a row, since the server was last reached
	failing_ts BIGINT NOT NULL, -- when the first of them was, milliseconds; 0: none
	retry_ts   BIGINT NOT NULL, -- not to be asked before, milliseconds
	success_ts BIGINT NOT NULL, -- when it was last reached, to about an hour, milliseconds; 0: never
	pos        BIGINT NOT NULL  -- of the log: everything up to it was sent; 0: sending has not begun
);
