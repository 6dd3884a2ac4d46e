-- A route has two halves with one writer each: an endpoint's policy (the store's) and a deployment's targets (the worker's).
-- `version` is the newer one of theirs. Processes of 0.1.0 that still run read and write `route`, which is both in one: it
-- is written with each half. A row whose `version` is neither half's was last written by such a process, and `route` holds.
ALTER TABLE route ADD COLUMN policy_version BIGINT;
ALTER TABLE route ADD COLUMN targets_version BIGINT;
ALTER TABLE route ADD COLUMN policy TEXT;
ALTER TABLE route ADD COLUMN targets TEXT;
