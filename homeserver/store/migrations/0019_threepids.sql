-- E-mail addresses that belong to users: proven, or vouched for by the operator.
CREATE TABLE threepids (
	medium       TEXT   NOT NULL, -- 'email'
	address      TEXT   NOT NULL, -- in small letters
	user_id      TEXT   NOT NULL,
	validated_ts BIGINT NOT NULL, -- ms
	added_ts     BIGINT NOT NULL, -- ms
	PRIMARY KEY (medium, address)
);
CREATE INDEX threepids_by_user ON threepids (user_id, added_ts);
