-- Version 2. Secrets of the ledger, random for each: "queries" is the key of the
-- hashes that stand for queries.
CREATE TABLE paywall_keys (
	name  text PRIMARY KEY,
	value bytea NOT NULL
);

INSERT INTO paywall_keys VALUES
	('queries', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
