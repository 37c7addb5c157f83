-- Version 4. Rows are locked while they are judged, so nobody has to see that they have
-- not changed.
ALTER TABLE paywall_payments DROP COLUMN revision;
