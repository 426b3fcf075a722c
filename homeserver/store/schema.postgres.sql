account_data.user_id text NOT NULL
account_data.room_id text NOT NULL
account_data.type text NOT NULL
account_data.content text NOT NULL
account_data.pos bigint NOT NULL
account_data: PRIMARY KEY (user_id, room_id, type)
CREATE INDEX account_data_by_pos ON public.account_data USING btree (user_id, pos)
aliases.alias text NOT NULL
aliases.room bigint NOT NULL
aliases.creator text NOT NULL
aliases: PRIMARY KEY (alias)
CREATE INDEX aliases_by_room ON public.aliases USING btree (room)
appservice_senders.appservice text NOT NULL
appservice_senders.pos bigint NOT NULL
appservice_senders.txn bigint NOT NULL
appservice_senders.upto bigint NOT NULL
appservice_senders.body bytea
appservice_senders: PRIMARY KEY (appservice)
backed_up_keys.user_id text NOT NULL
backed_up_keys.version bigint NOT NULL
backed_up_keys.room_id text NOT NULL
backed_up_keys.session_id text NOT NULL
backed_up_keys.first_message_index bigint NOT NULL
backed_up_keys.forwarded_count bigint NOT NULL
backed_up_keys.is_verified boolean NOT NULL
backed_up_keys.session_data text NOT NULL
backed_up_keys: PRIMARY KEY (user_id, version, room_id, session_id)
call_test_links.link bytea NOT NULL
call_test_links.expires_ts bigint NOT NULL
call_test_links: PRIMARY KEY (link)
counters.name text NOT NULL
counters.n bigint NOT NULL
counters: PRIMARY KEY (name)
cover_leaves.chain bigint NOT NULL
cover_leaves.key bigint NOT NULL
cover_leaves.event bigint NOT NULL
cover_leaves.to_num bigint NOT NULL
cover_leaves: PRIMARY KEY (chain, key)
CREATE INDEX cover_leaves_back ON public.cover_leaves USING btree (chain, to_num, event)
cover_links.from_chain bigint NOT NULL
cover_links.from_num bigint NOT NULL
cover_links.to_chain bigint NOT NULL
cover_links.to_num bigint NOT NULL
cover_links: PRIMARY KEY (from_chain, from_num, to_chain, to_num)
CREATE INDEX cover_links_back ON public.cover_links USING btree (to_chain, to_num, from_num)
covered.room bigint NOT NULL
covered.upto bigint NOT NULL
covered: PRIMARY KEY (room)
cross_signing_keys.user_id text NOT NULL
cross_signing_keys.usage text NOT NULL
cross_signing_keys.public text NOT NULL
cross_signing_keys.keys text NOT NULL
cross_signing_keys: PRIMARY KEY (user_id, usage)
dehydrated_devices.user_id text NOT NULL
dehydrated_devices.device_id text NOT NULL
dehydrated_devices.data text NOT NULL
dehydrated_devices: PRIMARY KEY (user_id)
delayed_events.delay_id text NOT NULL
delayed_events.user_id text NOT NULL
delayed_events.device_id text NOT NULL
delayed_events.txn text NOT NULL
delayed_events.room_id text NOT NULL
delayed_events.type text NOT NULL
delayed_events.state_key text
delayed_events.content text NOT NULL
delayed_events.at bigint NOT NULL
delayed_events.delay bigint NOT NULL
delayed_events.since_ts bigint NOT NULL
delayed_events.final_ts bigint NOT NULL
delayed_events.event_id text NOT NULL
delayed_events.error text NOT NULL
delayed_events: PRIMARY KEY (delay_id)
CREATE INDEX delayed_events_by_due ON public.delayed_events USING btree (final_ts, since_ts)
CREATE INDEX delayed_events_by_user ON public.delayed_events USING btree (user_id, final_ts)
destinations.server text NOT NULL
destinations.failures bigint NOT NULL
destinations.failing_ts bigint NOT NULL
destinations.retry_ts bigint NOT NULL
destinations.success_ts bigint NOT NULL
destinations.pos bigint NOT NULL
destinations: PRIMARY KEY (server)
device_keys.user_id text NOT NULL
device_keys.device_id text NOT NULL
device_keys.keys text NOT NULL
device_keys: PRIMARY KEY (user_id, device_id)
device_list_changes.user_id text NOT NULL
device_list_changes.observer text NOT NULL
device_list_changes.pos bigint NOT NULL
device_list_changes: PRIMARY KEY (user_id, observer)
CREATE INDEX device_list_changes_by_pos ON public.device_list_changes USING btree (pos)
devices.user_id text NOT NULL
devices.device_id text NOT NULL
devices.display_name text NOT NULL
devices.created_ts bigint NOT NULL
devices.last_seen_ts bigint NOT NULL
devices.last_seen_ip text NOT NULL
devices.last_seen_agent text NOT NULL
devices: PRIMARY KEY (user_id, device_id)
dropped_blobs.digest bytea NOT NULL
dropped_blobs.dropped_ts bigint NOT NULL
dropped_blobs: PRIMARY KEY (digest)
CREATE INDEX dropped_blobs_by_ts ON public.dropped_blobs USING btree (dropped_ts)
events.num bigint NOT NULL
events.event_id bytea NOT NULL
events.room bigint NOT NULL
events.pos bigint
events.status bigint NOT NULL
events.key bigint
events.sender text NOT NULL
events.state bigint NOT NULL
events.current bigint
events.redaction bigint
events.replaces bigint
events.chain bigint
events.json bytea NOT NULL
events: UNIQUE (event_id)
events: PRIMARY KEY (num)
CREATE INDEX events_by_chain ON public.events USING btree (chain, num) WHERE (chain IS NOT NULL)
CREATE UNIQUE INDEX events_by_place ON public.events USING btree (room, pos) WHERE (pos IS NOT NULL)
CREATE INDEX events_by_pos ON public.events USING btree (pos) WHERE (pos IS NOT NULL)
CREATE INDEX events_by_state ON public.events USING btree (room, num) WHERE (key IS NOT NULL)
fallback_keys.user_id text NOT NULL
fallback_keys.device_id text NOT NULL
fallback_keys.algorithm text NOT NULL
fallback_keys.key_id text NOT NULL
fallback_keys.used boolean NOT NULL
fallback_keys.content text NOT NULL
fallback_keys: PRIMARY KEY (user_id, device_id, algorithm)
filters.user_id text NOT NULL
filters.filter_id bigint NOT NULL
filters.sum bytea NOT NULL
filters.filter text NOT NULL
filters: PRIMARY KEY (user_id, filter_id)
CREATE UNIQUE INDEX filters_by_sum ON public.filters USING btree (user_id, sum)
gaps.room bigint NOT NULL
gaps.event bigint NOT NULL
gaps: PRIMARY KEY (room, event)
inbox.num bigint NOT NULL
inbox.room_id text NOT NULL
inbox.event_id text NOT NULL
inbox.origin text NOT NULL
inbox.json text NOT NULL
inbox.received_ts bigint NOT NULL
inbox: PRIMARY KEY (num)
CREATE INDEX inbox_by_age ON public.inbox USING btree (received_ts)
CREATE UNIQUE INDEX inbox_by_event ON public.inbox USING btree (event_id, origin)
CREATE INDEX inbox_by_origin ON public.inbox USING btree (origin, num)
CREATE INDEX inbox_by_room ON public.inbox USING btree (room_id, num)
key_backups.user_id text NOT NULL
key_backups.version bigint NOT NULL
key_backups.algorithm text NOT NULL
key_backups.auth_data text NOT NULL
key_backups.etag bigint NOT NULL
key_backups.keys bigint NOT NULL
key_backups: PRIMARY KEY (user_id, version)
key_signatures.user_id text NOT NULL
key_signatures.key_id text NOT NULL
key_signatures.signer text NOT NULL
key_signatures.signed_by text NOT NULL
key_signatures.signature text NOT NULL
key_signatures: PRIMARY KEY (user_id, key_id, signer, signed_by)
CREATE INDEX key_signatures_by_signer ON public.key_signatures USING btree (signer, signed_by)
login_tokens.token bytea NOT NULL
login_tokens.user_id text NOT NULL
login_tokens.expires_ts bigint NOT NULL
login_tokens: PRIMARY KEY (token)
media.media_id text NOT NULL
media.uploader text NOT NULL
media.digest bytea
media.size bigint NOT NULL
media.type text NOT NULL
media.name text NOT NULL
media.created_ts bigint NOT NULL
media.expires_ts bigint NOT NULL
media.used_ts bigint NOT NULL
media: PRIMARY KEY (media_id)
CREATE INDEX media_by_digest ON public.media USING btree (digest)
CREATE INDEX media_by_expires ON public.media USING btree (expires_ts)
CREATE INDEX media_by_uploader ON public.media USING btree (uploader, size)
CREATE INDEX media_by_use ON public.media USING btree (used_ts)
memberships.user_id text NOT NULL
memberships.room bigint NOT NULL
memberships.membership text NOT NULL
memberships.event bigint NOT NULL
memberships.pos bigint NOT NULL
memberships.local boolean NOT NULL
memberships.forgotten boolean NOT NULL
memberships: PRIMARY KEY (user_id, room)
CREATE INDEX memberships_by_room ON public.memberships USING btree (room, membership, event)
migrations.number bigint NOT NULL
migrations.name text NOT NULL
migrations: PRIMARY KEY (number)
notice_rooms.user_id text NOT NULL
notice_rooms.room_id text NOT NULL
notice_rooms: PRIMARY KEY (user_id)
CREATE UNIQUE INDEX notice_rooms_by_room ON public.notice_rooms USING btree (room_id)
one_time_keys.user_id text NOT NULL
one_time_keys.device_id text NOT NULL
one_time_keys.algorithm text NOT NULL
one_time_keys.key_id text NOT NULL
one_time_keys.num bigint NOT NULL
one_time_keys.claimed bigint NOT NULL
one_time_keys.content text NOT NULL
one_time_keys: PRIMARY KEY (user_id, device_id, algorithm, key_id)
CREATE INDEX one_time_keys_by_num ON public.one_time_keys USING btree (user_id, device_id, algorithm, claimed, num)
openid_tokens.token bytea NOT NULL
openid_tokens.user_id text NOT NULL
openid_tokens.expires_ts bigint NOT NULL
openid_tokens: PRIMARY KEY (token)
CREATE INDEX openid_tokens_by_expiry ON public.openid_tokens USING btree (expires_ts)
outbox.num bigint NOT NULL
outbox.server text NOT NULL
outbox.type text NOT NULL
outbox.content text NOT NULL
outbox: PRIMARY KEY (num)
CREATE INDEX outbox_by_server ON public.outbox USING btree (server, num)
pasts.room bigint NOT NULL
pasts.since bigint NOT NULL
pasts.upto bigint NOT NULL
pasts: PRIMARY KEY (room)
presence.user_id text NOT NULL
presence.presence text NOT NULL
presence.status_msg text NOT NULL
presence.last_active bigint NOT NULL
presence.pos bigint NOT NULL
presence: PRIMARY KEY (user_id)
CREATE INDEX presence_by_pos ON public.presence USING btree (pos)
profile_fields.user_id text NOT NULL
profile_fields.name text NOT NULL
profile_fields.value text NOT NULL
profile_fields: PRIMARY KEY (user_id, name)
published.list text NOT NULL
published.room bigint NOT NULL
published: PRIMARY KEY (list, room)
pushers.user_id text NOT NULL
pushers.app_id text NOT NULL
pushers.pushkey text NOT NULL
pushers.device_id text NOT NULL
pushers.kind text NOT NULL
pushers.app_name text NOT NULL
pushers.device_name text NOT NULL
pushers.profile_tag text NOT NULL
pushers.lang text NOT NULL
pushers.data text NOT NULL
pushers.created_ts bigint NOT NULL
pushers.pos bigint NOT NULL
pushers.pauses text NOT NULL
pushers: PRIMARY KEY (user_id, app_id, pushkey)
CREATE INDEX pushers_by_key ON public.pushers USING btree (app_id, pushkey)
quarantined_media.server text NOT NULL
quarantined_media.media_id text NOT NULL
quarantined_media.digest bytea
quarantined_media.ts bigint NOT NULL
quarantined_media: PRIMARY KEY (server, media_id)
CREATE INDEX quarantined_media_by_digest ON public.quarantined_media USING btree (digest)
receipts.room bigint NOT NULL
receipts.user_id text NOT NULL
receipts.type text NOT NULL
receipts.thread text NOT NULL
receipts.event_id text NOT NULL
receipts.place bigint NOT NULL
receipts.ts bigint NOT NULL
receipts.pos bigint NOT NULL
receipts: PRIMARY KEY (room, user_id, type, thread)
CREATE INDEX receipts_by_log ON public.receipts USING btree (pos)
CREATE INDEX receipts_by_pos ON public.receipts USING btree (room, pos)
redactions.target text NOT NULL
redactions.event bigint NOT NULL
redactions: PRIMARY KEY (target, event)
registration_tokens.token text NOT NULL
registration_tokens.uses_allowed bigint
registration_tokens.completed bigint NOT NULL
registration_tokens.expires_ts bigint NOT NULL
registration_tokens.admin boolean NOT NULL
registration_tokens.created_ts bigint NOT NULL
registration_tokens: PRIMARY KEY (token)
relations.target bytea NOT NULL
relations.pos bigint NOT NULL
relations.event bigint NOT NULL
relations.rel_type text NOT NULL
relations: PRIMARY KEY (target, pos, event)
remote_device_lists.user_id text NOT NULL
remote_device_lists.stream_id bigint NOT NULL
remote_device_lists.stale boolean NOT NULL
remote_device_lists.pos bigint NOT NULL DEFAULT 0
remote_device_lists: PRIMARY KEY (user_id)
remote_devices.user_id text NOT NULL
remote_devices.device_id text NOT NULL
remote_devices.keys text NOT NULL
remote_devices.display_name text NOT NULL
remote_devices: PRIMARY KEY (user_id, device_id)
remote_media.server text NOT NULL
remote_media.media_id text NOT NULL
remote_media.digest bytea NOT NULL
remote_media.size bigint NOT NULL
remote_media.type text NOT NULL
remote_media.name text NOT NULL
remote_media.fetched_ts bigint NOT NULL
remote_media.used_ts bigint NOT NULL
remote_media: PRIMARY KEY (server, media_id)
CREATE INDEX remote_media_by_digest ON public.remote_media USING btree (digest)
CREATE INDEX remote_media_by_use ON public.remote_media USING btree (used_ts, size)
reports.reporter text NOT NULL
reports.room_id text NOT NULL
reports.event_id text NOT NULL
reports.user_id text NOT NULL
reports.reason text NOT NULL
reports.ts bigint NOT NULL
reports: PRIMARY KEY (reporter, room_id, event_id, user_id)
CREATE INDEX reports_by_ts ON public.reports USING btree (ts)
requests.user_id text NOT NULL
requests.device text NOT NULL
requests.endpoint text NOT NULL
requests.txn text NOT NULL
requests.event bigint NOT NULL
requests.at bigint NOT NULL
requests: PRIMARY KEY (user_id, device, endpoint, txn)
CREATE INDEX requests_by_at ON public.requests USING btree (at)
CREATE INDEX requests_by_event ON public.requests USING btree (event)
room_servers.room bigint NOT NULL
room_servers.server text NOT NULL
room_servers.joined bigint NOT NULL
room_servers: PRIMARY KEY (room, server)
CREATE INDEX room_servers_by_server ON public.room_servers USING btree (server)
rooms.num bigint NOT NULL
rooms.room_id text NOT NULL
rooms.version text NOT NULL
rooms.current bigint NOT NULL
rooms.heads text NOT NULL
rooms.last bigint NOT NULL
rooms.joined bigint NOT NULL
rooms.invited bigint NOT NULL
rooms.open boolean NOT NULL
rooms: PRIMARY KEY (num)
rooms: UNIQUE (room_id)
search.rowid bigint NOT NULL
search.words tsvector NOT NULL
search: PRIMARY KEY (rowid)
CREATE INDEX search_by_words ON public.search USING gin (words)
search_again.event bigint NOT NULL
search_again: PRIMARY KEY (event)
search_span.one bigint NOT NULL
search_span.below bigint NOT NULL
search_span.above bigint NOT NULL
search_span: PRIMARY KEY (one)
server_keys.server text NOT NULL
server_keys.key_id text NOT NULL
server_keys.public bytea NOT NULL
server_keys.valid_until_ts bigint NOT NULL
server_keys.expired_ts bigint NOT NULL
server_keys.fetched_ts bigint NOT NULL
server_keys.answer bytea
server_keys: PRIMARY KEY (server, key_id)
state_keys.num bigint NOT NULL
state_keys.type text NOT NULL
state_keys.state_key text NOT NULL
state_keys: PRIMARY KEY (num)
state_keys: UNIQUE (state_key, type)
state_nodes.id bigint NOT NULL
state_nodes.data bytea NOT NULL
state_nodes: PRIMARY KEY (id)
streams.name text NOT NULL
streams.pos bigint NOT NULL
streams: PRIMARY KEY (name)
stripped.room bigint NOT NULL
stripped.user_id text NOT NULL
stripped.events text NOT NULL
stripped: PRIMARY KEY (room, user_id)
threads.room bigint NOT NULL
threads.root bytea NOT NULL
threads.last bigint NOT NULL
threads: PRIMARY KEY (room, root)
CREATE INDEX threads_by_last ON public.threads USING btree (room, last)
threepids.medium text NOT NULL
threepids.address text NOT NULL
threepids.user_id text NOT NULL
threepids.validated_ts bigint NOT NULL
threepids.added_ts bigint NOT NULL
threepids: PRIMARY KEY (medium, address)
CREATE INDEX threepids_by_user ON public.threepids USING btree (user_id, added_ts)
thumbnails.original bytea NOT NULL
thumbnails.width bigint NOT NULL
thumbnails.height bigint NOT NULL
thumbnails.method text NOT NULL
thumbnails.animated boolean NOT NULL
thumbnails.digest bytea NOT NULL
thumbnails.size bigint NOT NULL
thumbnails.type text NOT NULL
thumbnails: PRIMARY KEY (original, width, height, method, animated)
CREATE INDEX thumbnails_by_digest ON public.thumbnails USING btree (digest)
to_device.user_id text NOT NULL
to_device.device_id text NOT NULL
to_device.num bigint NOT NULL
to_device.pos bigint NOT NULL
to_device.sender text NOT NULL
to_device.type text NOT NULL
to_device.content text NOT NULL
to_device: PRIMARY KEY (user_id, device_id, num)
CREATE INDEX to_device_by_num ON public.to_device USING btree (num)
CREATE INDEX to_device_by_pos ON public.to_device USING btree (user_id, device_id, pos)
to_device_requests.user_id text NOT NULL
to_device_requests.device_id text NOT NULL
to_device_requests.type text NOT NULL
to_device_requests.txn text NOT NULL
to_device_requests.at bigint NOT NULL
to_device_requests: PRIMARY KEY (user_id, device_id, type, txn)
CREATE INDEX to_device_requests_by_at ON public.to_device_requests USING btree (at)
tokens.access bytea NOT NULL
tokens.refresh bytea
tokens.user_id text NOT NULL
tokens.device_id text NOT NULL
tokens.expires_ts bigint NOT NULL
tokens.replaces bytea
tokens.created_ts bigint NOT NULL
tokens: PRIMARY KEY (access)
CREATE INDEX tokens_by_device ON public.tokens USING btree (user_id, device_id)
CREATE UNIQUE INDEX tokens_by_refresh ON public.tokens USING btree (refresh)
CREATE INDEX tokens_by_replaces ON public.tokens USING btree (replaces)
turn_secrets.secret bytea NOT NULL
turn_secrets.made_ts bigint NOT NULL
turn_secrets: PRIMARY KEY (secret)
uia_sessions.session text NOT NULL
uia_sessions.operation text NOT NULL
uia_sessions.user_id text NOT NULL
uia_sessions.completed text NOT NULL
uia_sessions.expires_ts bigint NOT NULL
uia_sessions: PRIMARY KEY (session)
CREATE INDEX uia_sessions_by_expires ON public.uia_sessions USING btree (expires_ts)
users.user_id text NOT NULL
users.password text NOT NULL
users.kind text NOT NULL
users.appservice text NOT NULL
users.admin boolean NOT NULL
users.deactivated boolean NOT NULL
users.erased boolean NOT NULL
users.locked boolean NOT NULL
users.suspended boolean NOT NULL
users.created_ts bigint NOT NULL
users: PRIMARY KEY (user_id)
CREATE INDEX users_by_created ON public.users USING btree (created_ts, user_id)
