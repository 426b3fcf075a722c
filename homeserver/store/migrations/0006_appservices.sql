-- How far each appservice has been told of the log. A transaction that is
-- under way is kept, because a repeated one must be the same to the byte.
CREATE TABLE appservice_senders (
	appservice TEXT   NOT NULL PRIMARY KEY, -- ID of the registration
	pos        BIGINT NOT NULL,             -- of the log: everything up to it was told
	txn        BIGINT NOT NULL,             -- number of the newest transaction
	upto       BIGINT NOT NULL,             -- pos when the transaction under way is through
	body       BLOB                         -- the transaction under way; NULL: none
);
