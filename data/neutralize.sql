-- Nothing goes out from a copied database: its outbound configurations are archived, lose the other system's
-- credentials, and point to a host that can never exist (RFC 2606), should something call them all the same.
-- Inbound ones stay as they are, so that the copy can be tested: their credentials open this database only.
UPDATE bj_api_sync_config
   SET active = false,
       login = NULL,
       password = NULL,
       bearer_token = NULL,
       signing_secret = NULL,
       signing_secret_previous = NULL,
       pull_state = NULL,
       client_secret = NULL,
       header_secret = NULL
 WHERE request_type = 'out';

-- Deliveries go where their configuration points when they are sent: so none finds the former host, also of a
-- configuration that is inbound for now.
UPDATE bj_api_sync_config
   SET token_url = regexp_replace(token_url, '^(https?://)[^/?#]*', '\1neutralized.invalid', 'i'),
       deletion_url = regexp_replace(deletion_url, '^(https?://)[^/?#]*', '\1neutralized.invalid', 'i'),
       request_url = regexp_replace(request_url, '^(https?://)[^/?#]*', '\1neutralized.invalid', 'i');

DELETE FROM bj_api_sync_token;

UPDATE bj_api_sync_header
   SET value = NULL
 WHERE config_id IN (SELECT id FROM bj_api_sync_config WHERE request_type = 'out');

-- Once outbound configurations are on again, what waits here must not be sent: the original sends it.
UPDATE bj_api_delivery
   SET state = 'cancelled',
       last_error = 'Neutralized copy of a database',
       done_date = now() AT TIME ZONE 'UTC'
 WHERE state IN ('pending', 'failed', 'sending');
