-- Version 1. What changes stands first and what is large last, so that an update
-- in place writes little to the log.
--
-- The indexes leave out every column that a payment changes on its way, but for
-- stage: so the moves from claimed to delivering touch no index at all.

CREATE TABLE paywall_payments (
	-- The first half of SHA-256(key), which is also the payment's public name.
	id          uuid PRIMARY KEY,
	-- Random, and another with every change.
	revision    bigint NOT NULL,
	token       uuid,
	created     timestamptz NOT NULL,
	updated     timestamptz NOT NULL,
	lease       timestamptz,
	valid_before timestamptz,
	keep        timestamptz,
	status      bigint NOT NULL,
	runs        bigint NOT NULL,
	doubt       boolean NOT NULL,
	-- 0: not at its end. 1: delivered. 2: refused.
	stage       smallint GENERATED ALWAYS AS
		(CASE state WHEN 'delivered' THEN 1 WHEN 'refused' THEN 2 ELSE 0 END) STORED,
	state       text NOT NULL,
	payer       text NOT NULL,
	amount      text NOT NULL,
	facilitator text NOT NULL,
	transaction text NOT NULL,
	reason      text NOT NULL,
	key         text NOT NULL,
	scheme      text NOT NULL,
	network     text NOT NULL,
	asset       text NOT NULL,
	pay_to      text NOT NULL,
	method      text NOT NULL,
	host        text NOT NULL,
	client      text NOT NULL,
	identifier  text NOT NULL,
	body        text NOT NULL,
	-- As received: any bytes.
	url         bytea NOT NULL,
	request     bytea,
	answer      bytea
) WITH (
	-- Room for a payment's next versions beside it.
	fillfactor = 50,
	autovacuum_vacuum_scale_factor = 0.02,
	autovacuum_analyze_scale_factor = 0.05
);

-- Texts from the world may be longer than an index takes, hence left().
CREATE INDEX paywall_payments_age ON paywall_payments (created, id);
CREATE INDEX paywall_payments_payer ON paywall_payments (left(payer, 64), created, id);
CREATE INDEX paywall_payments_identifier ON paywall_payments (left(identifier, 128), created, id)
	WHERE identifier <> '';
CREATE INDEX paywall_payments_open ON paywall_payments (created, id) WHERE stage = 0;
CREATE INDEX paywall_payments_owed ON paywall_payments (left(payer, 64), created, id) WHERE stage = 0;
CREATE INDEX paywall_payments_finished ON paywall_payments (coalesce(keep, created)) WHERE stage = 1;
CREATE INDEX paywall_payments_refused ON paywall_payments (created, id) WHERE stage = 2;

-- Which chain a network's name means: the hash of its first block.
CREATE TABLE paywall_networks (
	network text PRIMARY KEY,
	genesis text NOT NULL,
	seen    timestamptz NOT NULL DEFAULT now()
);
