-- How requests are shared out among a deployment's revisions: the state of its rollout. `serving_revision` is the one with the
-- largest share, for processes of 0.1.0 that still run. Where it is not, such a process wrote it last, and it holds.
ALTER TABLE deployment ADD COLUMN traffic TEXT;
