-- Version 3. What a payment has learnt to say of itself; of older ones it is not known.
ALTER TABLE paywall_payments
	ADD COLUMN line     text NOT NULL DEFAULT '',
	ADD COLUMN effects  boolean NOT NULL DEFAULT false,
	ADD COLUMN ended    bigint NOT NULL DEFAULT 0,
	ADD COLUMN fetch_by timestamptz;
