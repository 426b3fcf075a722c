-- The words of the events that are found by their text, under their places in
-- timelines. The text itself stands in events.
CREATE VIRTUAL TABLE search USING fts5 (words, content = '', contentless_delete = 1, detail = none, tokenize = "ascii tokenchars '!#'");

-- Events of which numbers are in the index: those behind below and not behind above.
CREATE TABLE search_span (
	one   BIGINT PRIMARY KEY, -- 1
	below BIGINT NOT NULL,
	above BIGINT NOT NULL
);
INSERT INTO search_span (one, below, above) SELECT 1, pos, pos FROM streams WHERE name = 'log';

-- Events whose words have changed since they were stored.
CREATE TABLE search_again (
	event BIGINT PRIMARY KEY
);
